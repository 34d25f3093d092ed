//! Why a listener's certificates cannot be served, with the file that has to change and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::ca::{CaError, LeafError};

/// Why files cannot be served; each names the file and what to do about it.
#[derive(Debug)]
pub enum TlsError {
    Unreadable {
        file: PathBuf,
        error: std::io::Error,
    },
    NoCertificate {
        file: PathBuf,
    },
    NoKey {
        file: PathBuf,
        error: String,
    },
    Mismatch {
        cert: PathBuf,
        key: PathBuf,
        /// The certificate of the file that the key does belong to, counted from 1.
        belongs_to: Option<usize>,
    },
    NotServable {
        file: PathBuf,
        error: rustls::Error,
    },
    ClientCa {
        file: PathBuf,
        error: String,
    },
    /// The private CA cannot be used.
    Ca(CaError),
    Leaf {
        folder: PathBuf,
        error: LeafError,
    },
    /// The cryptography provider lacks TLS 1.2 or 1.3.
    Provider(rustls::Error),
}

impl TlsError {
    /// The file that has to change.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Unreadable { file, .. }
            | Self::NoCertificate { file }
            | Self::NoKey { file, .. }
            | Self::NotServable { file, .. }
            | Self::ClientCa { file, .. } => Some(file),
            Self::Mismatch { key, .. } => Some(key),
            Self::Ca(error) => Some(&error.file),
            Self::Leaf { folder, .. } => Some(folder),
            Self::Provider(_) => None,
        }
    }

    pub fn what(&self) -> String {
        match self {
            Self::Unreadable { file, error } => format!("{} cannot be read ({error})", file.display()),
            Self::NoCertificate { file } => format!("{} holds no PEM certificate", file.display()),
            Self::NoKey { file, error } => {
                format!("{} holds no usable private key ({error})", file.display())
            }
            Self::Mismatch { cert, key, belongs_to: None } => {
                format!("{} is not the key of the first certificate in {}", key.display(), cert.display())
            }
            Self::Mismatch { cert, key, belongs_to: Some(place) } => format!(
                "the chain in {} is in the wrong order: {} is the key of certificate {place} in it, not of the first",
                cert.display(),
                key.display()
            ),
            Self::NotServable { file, error } => format!("{} cannot be served ({error})", file.display()),
            Self::ClientCa { file, error } => {
                format!("{} cannot be used as client CA ({error})", file.display())
            }
            Self::Ca(error) => error.what.clone(),
            Self::Leaf { folder, error } => format!("{}: {error}", folder.display()),
            Self::Provider(error) => format!("the cryptography provider lacks TLS 1.2 or 1.3 ({error})"),
        }
    }

    pub fn fix(&self) -> String {
        let fix = match self {
            Self::Unreadable { .. } => "check the path and who may read it",
            Self::NoCertificate { .. } => {
                "it has to contain -----BEGIN CERTIFICATE-----, the server's own first"
            }
            Self::NoKey { .. } => {
                "PKCS#8, PKCS#1 and SEC1 in PEM form are understood, encrypted keys are not"
            }
            Self::Mismatch { belongs_to: Some(place), .. } => {
                return format!("put certificate {place} first, then the one that signed it, and so on");
            }
            Self::Mismatch { belongs_to: None, .. } => "name the key that was made for that certificate",
            Self::NotServable { .. } => {
                "put the server's own certificate first, one that this version of TLS knows"
            }
            Self::ClientCa { .. } => "name the authorities that sign callers' certificates, in PEM form",
            Self::Ca(error) => return error.fix.clone(),
            Self::Leaf { .. } => "start again; if it stays, make a new CA",
            Self::Provider(_) => "take a program that was built as it is released",
        };
        fix.to_owned()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.fix())
    }
}

impl std::error::Error for TlsError {}
