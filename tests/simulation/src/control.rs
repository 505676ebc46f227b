//! What signals do to a process: it goes on, stands still, is asked to end, or is gone.

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
};

use tokio::sync::Notify;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Up,
    Stopped,
    Killed,
}

pub(crate) struct Control {
    state: Mutex<(Signal, Option<Waker>)>,
    shutdown: Notify,
}

impl Control {
    pub(crate) fn new() -> Control {
        Control { state: Mutex::new((Signal::Up, None)), shutdown: Notify::new() }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.signal() == Signal::Up
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.signal() == Signal::Killed
    }

    pub(crate) fn kill(&self) {
        self.set(Signal::Killed);
    }

    pub(crate) fn stop(&self) {
        if self.is_up() {
            self.set(Signal::Stopped);
        }
    }

    pub(crate) fn wake(&self) {
        if self.signal() == Signal::Stopped {
            self.set(Signal::Up);
        }
    }

    pub(crate) fn shut_down(&self) {
        self.shutdown.notify_one();
    }

    /// Resolves when the process is asked to end.
    pub(crate) async fn asked_to_end(&self) {
        self.shutdown.notified().await;
    }

    /// The life of a process: not polled while it is stopped; `None` when it was killed.
    pub(crate) async fn govern<T>(&self, life: impl Future<Output = T>) -> Option<T> {
        let mut life = std::pin::pin!(life);
        std::future::poll_fn(|context| self.poll(life.as_mut(), context)).await
    }

    fn poll<T>(&self, life: Pin<&mut impl Future<Output = T>>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let signal = {
            let mut state = self.state.lock().expect("no holder panics");
            state.1 = Some(context.waker().clone());
            state.0
        };
        match signal {
            Signal::Up => life.poll(context).map(Some),
            Signal::Stopped => Poll::Pending,
            Signal::Killed => Poll::Ready(None),
        }
    }

    fn signal(&self) -> Signal {
        self.state.lock().expect("no holder panics").0
    }

    fn set(&self, signal: Signal) {
        let waker = {
            let mut state = self.state.lock().expect("no holder panics");
            if state.0 == Signal::Killed {
                return;
            }
            state.0 = signal;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
