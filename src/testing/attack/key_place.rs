//! A place on loopback that tokens name for their key. Whoever asks there has believed a token that nobody has verified.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Counts who comes, and hangs up.
#[derive(Debug)]
pub(super) struct KeyPlace {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    asked: AtomicUsize,
    is_closing: AtomicBool,
}

impl KeyPlace {
    /// None if no port or no thread can be had.
    pub(super) fn open() -> Option<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let address = listener.local_addr().ok()?;
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        // A thread of its own: the suite may run on one that waits for the service, which waits for this.
        let count = move || {
            for _stranger in listener.incoming() {
                if shared.is_closing.load(Ordering::SeqCst) {
                    return;
                }
                shared.asked.fetch_add(1, Ordering::SeqCst);
            }
        };
        let thread = thread::Builder::new().name("attack-suite-keys".to_owned()).spawn(count).ok()?;
        Some(Self { address, state, thread: Some(thread) })
    }

    /// A host and a port.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often somebody came.
    pub(super) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }
}

impl Drop for KeyPlace {
    fn drop(&mut self) {
        self.state.is_closing.store(true, Ordering::SeqCst);
        // Wakes the thread; where nobody answers, it has gone.
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}
