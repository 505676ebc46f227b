use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use super::store::Store;
use crate::Wake;

/// The wakes of a store's readers, and whether the thread that calls them runs.
#[derive(Default)]
pub(super) struct Watch {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// A reader owns its wake: when it goes, so does the wake.
    wakes: Vec<Weak<Wake>>,
    running: bool,
}

/// Has `wake` called after each commit, of any process, for as long as it lives.
pub(super) fn register(store: &Arc<Store>, wake: &Arc<Wake>) {
    let mut inner = store.watch.inner.lock().unwrap_or_else(PoisonError::into_inner);
    inner.wakes.push(Arc::downgrade(wake));
    if !inner.running {
        let weak = Arc::downgrade(store);
        let seen = store.last_txn();
        inner.running =
            thread::Builder::new().name("weir-log-watch".to_owned()).spawn(move || run(&weak, seen)).is_ok();
    }
    drop(inner);
    // Something may have come before the thread looked for the first time.
    wake();
}

/// Calls the wakes after each commit, until there is no wake or no store left.
fn run(store: &Weak<Store>, mut seen: usize) {
    while let Some(store) = store.upgrade() {
        let committed = store.wait_for_commit(seen, Duration::from_millis(200));
        let last = store.last_txn();
        let mut inner = store.watch.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.wakes.retain(|wake| wake.strong_count() > 0);
        if inner.wakes.is_empty() {
            inner.running = false;
            return;
        }
        let wakes: Vec<_> = inner.wakes.iter().filter_map(Weak::upgrade).collect();
        drop(inner);
        if committed {
            seen = last;
            for wake in wakes {
                wake();
            }
        }
    }
}
