//! Cores that do not sleep while latencies are measured. Waking one costs more than a proxy does, on a
//! virtual machine much more, and how deep a core sleeps is the kernel's and the hypervisor's choice. Linux
//! lets a program ask for none of it (its "CPU latency quality of service" interface) for as long as that
//! program keeps the file open.

use std::fs::File;
use std::io::{self, Write};

const INTERFACE: &str = "/dev/cpu_dma_latency";

/// The request, or why it was refused. Dropping it takes it back.
pub struct CpuLatencyRequest(io::Result<File>);

impl CpuLatencyRequest {
    pub fn ask() -> Self {
        let ask = || {
            let mut file = File::options().write(true).open(INTERFACE)?;
            // The longest wait for a core that wakes, in microseconds.
            file.write_all(&0_i32.to_ne_bytes())?;
            Ok(file)
        };
        Self(ask())
    }

    /// What a reader of the figures has to know.
    pub fn note(&self) -> String {
        match &self.0 {
            Ok(_) => "cores were kept from sleeping".to_owned(),
            Err(error) => {
                format!("cores could sleep, and waking them is in these latencies: {INTERFACE}: {error}")
            }
        }
    }
}
