//! Where metrics are written and sent: threads of their own that give way to the broker's. A page of a hundred thousand
//! queues keeps a processor busy for most of a second, and messages must not wait for it.

use std::{future::Future, io};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// How much less of a contended processor a thread gets, by nice(2): a tenth of what one of the broker's does.
const NICE: i32 = 10;
/// Pages that are written at a time; more wait.
const PAGES_MAX: usize = 8;

/// A runtime whose threads give way.
pub(in crate::management) struct Aside(Option<Runtime>);

impl Aside {
    /// # Errors
    /// When the system gives no more threads or files.
    pub(in crate::management) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(PAGES_MAX)
            .thread_name("metrics")
            .on_thread_start(give_way)
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs what makes a future there, and the future.
    pub(in crate::management) fn spawn<F>(&self, future: F) -> Option<JoinHandle<()>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.as_ref().map(|runtime| runtime.spawn(future))
    }

    /// What is opened meanwhile belongs to it.
    pub(in crate::management) fn open<T>(&self, open: impl FnOnce() -> T) -> T {
        let _entered = self.0.as_ref().map(Runtime::enter);
        open()
    }
}

/// A runtime may not be waited for where others run.
impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// On Linux the priority is the thread's, not the program's.
fn give_way() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "nice");
    }
}
