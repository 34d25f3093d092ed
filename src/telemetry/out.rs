//! Where log lines go, for those who write theirs by themselves. It travels with the subscriber, so that whoever replaces the one replaces
//! the other.

use std::io::{self, Write};
use std::sync::Arc;

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;

/// See the top of this file. As a layer it does nothing but be found.
#[derive(Clone)]
pub struct Out(Arc<Put>);

type Put = dyn Fn(&[u8]) -> io::Result<()> + Send + Sync;

/// One writer for several layers.
pub(super) struct Shared<W>(Arc<W>);

impl Out {
    pub(super) fn of<W>(writer: &Shared<W>) -> Self
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let writer = writer.0.clone();
        Self(Arc::new(move |lines| writer.make_writer().write_all(lines)))
    }

    /// That of the subscriber in force here; standard error where it has none.
    pub fn current() -> Self {
        let of_subscriber =
            tracing::dispatcher::get_default(|subscriber| subscriber.downcast_ref::<Out>().cloned());
        of_subscriber.unwrap_or_else(|| Self(Arc::new(|lines| io::stderr().write_all(lines))))
    }
}

impl Write for Out {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        (self.0)(lines).map(|()| lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Subscriber> Layer<S> for Out {}

impl<W> Shared<W> {
    pub(super) fn new(writer: W) -> Self {
        Self(Arc::new(writer))
    }
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Shared<W> {
    type Writer = W::Writer;

    fn make_writer(&'w self) -> W::Writer {
        self.0.make_writer()
    }
}
