//! What is done to the whole store while the gateway goes on: a backup is handed out, and everything is
//! re-encrypted with the newest key.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::{StatusCode, header};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::task::JoinHandle;

use crate::journal::catalogue::AuditAct;
use crate::store::rotate::Rotation;

use super::error::ApiError;
use super::{Actor, Admin};

/// What the store may be ahead of the reader, and the size of a piece.
const CHUNK: usize = 64 * 1024;

/// A backup that is being taken, in a task of its own: it ends, and the audit log says how, also where the
/// reader has left.
struct BackupStream {
    read: DuplexStream,
    done: JoinHandle<Result<u64, ApiError>>,
}

/// The copy as it is made. It holds everything sealed, so it is of no use without the key. A copy that could
/// not be finished is cut off.
pub async fn back_up(State(admin): State<Arc<Admin>>, actor: Actor) -> Result<Response, ApiError> {
    let (read, mut write) = tokio::io::duplex(CHUNK);
    let done = tokio::spawn(async move {
        let copy = async { admin.store.back_up(&mut write).await.map_err(ApiError::of_store) };
        admin.audited(&actor, AuditAct::Backup, None, copy).await
    });
    let mut backup = BackupStream { read, done };
    // A failure before the first byte is an error response like any other.
    let first = match backup.next().await {
        Ok(Some(first)) => first,
        Ok(None) => return Err(backup.problem().await),
        Err(_) => return Err(backup.problem().await),
    };
    let pieces = futures_util::stream::unfold((Some(first), Some(backup)), |(ready, backup)| async {
        if let Some(ready) = ready {
            return Some((Ok(ready), (None, backup)));
        }
        let mut backup = backup?;
        match backup.next().await {
            Ok(Some(chunk)) => Some((Ok(chunk), (None, Some(backup)))),
            Ok(None) => match backup.done.await {
                Ok(Ok(_)) => None,
                Ok(Err(_)) | Err(_) => Some((Err(io::Error::other("the backup broke off")), (None, None))),
            },
            Err(error) => Some((Err(error), (None, None))),
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces)).into_response())
}

/// In a task of its own as well: half a rotation helps nobody, although the next run would finish it.
pub async fn rotate_key(State(admin): State<Arc<Admin>>, actor: Actor) -> Result<Json<Rotation>, ApiError> {
    let rotating = tokio::spawn(async move {
        let rotate = async {
            (admin.refuse_stale_key)().map_err(ApiError::of_store)?;
            admin.store.rotate_key().await.map_err(ApiError::of_store)
        };
        admin.audited(&actor, AuditAct::RotateKey, None, rotate).await
    });
    rotating.await.unwrap_or_else(|_| Err(broken_off("The rotation broke off; run it again."))).map(Json)
}

impl BackupStream {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = self.read.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| chunk.freeze()))
    }

    async fn problem(self) -> ApiError {
        match self.done.await {
            Ok(Err(problem)) => problem,
            Ok(Ok(_)) | Err(_) => broken_off("The backup broke off."),
        }
    }
}

fn broken_off(detail: &str) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "store", detail).fix("The log says why.")
}
