//! What the library logs.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    thread::ThreadId,
};

/// Keeps the text of every event of the library, and the thread that it is of.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<(ThreadId, String)>>>);

impl Lines {
    /// Those of this thread.
    pub fn here(&self) -> Vec<String> {
        let here = std::thread::current().id();
        self.0.lock().unwrap().iter().filter(|(thread, _)| *thread == here).map(|(_, line)| line.clone()).collect()
    }

    /// Those of all threads since the last time.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap()).into_iter().map(|(_, line)| line).collect()
    }

    pub fn count(&self, part: &str) -> usize {
        self.here().iter().filter(|line| line.contains(part)).count()
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Text(String);

        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }

        if event.metadata().target() == "portcullis" {
            let mut text = Text(String::new());
            event.record(&mut text);
            let line = format!("{} {}", event.metadata().level(), text.0);
            self.0.lock().unwrap().push((std::thread::current().id(), line));
        }
    }
}
