//! The client half: a pool of idle connections, one exchange over a connection, and how long it may take. No
//! task drives a connection: whoever uses it polls it.

mod connection;
mod dial;
mod exchange;
mod exchange_error;
mod keep_alive;
mod lazy_deadline;
mod outgoing_body;
mod pool;
mod request_writer;

pub use dial::{Dial, DialError, Io, PoolKey};
pub use exchange::{IncomingResponse, exchange};
pub use exchange_error::{ExchangeError, FailedExchange};
pub use outgoing_body::{OutgoingBody, StreamedBody};
pub use pool::{Checkout, Pool};
pub use request_writer::{OutgoingRequest, Timeouts};
