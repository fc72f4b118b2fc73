//! Several threads at once, for stores that answer without waiting: those that hold no lock from the look to the write.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Barrier},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

/// How many ask at once.
pub(super) const THREADS: usize = 4;

/// The answer, if it is there at the first look.
pub(super) fn at_once<T>(answer: impl Future<Output = T>) -> Option<T> {
    match pin!(answer).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

/// Asks from [`THREADS`] threads at the same time, each with its number. None if one of them panicked, such as a store that wants a
/// runtime around it: nothing is known then.
pub(super) fn from_threads<T: Send, F: Future<Output = T>>(ask: impl Fn(usize) -> F + Sync) -> Option<Vec<T>> {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let (start, ask) = (&start, &ask);
        let asked = |number| {
            scope.spawn(move || {
                start.wait();
                block_on(ask(number))
            })
        };
        let threads: Vec<_> = (0..THREADS).map(asked).collect();
        let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().ok()).collect();
        answers.into_iter().collect()
    })
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a lock that another thread holds, for example.
fn block_on<T>(answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    let waker = Arc::new(Unpark(thread::current())).into();
    loop {
        match answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}
