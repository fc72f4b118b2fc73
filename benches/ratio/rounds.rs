//! Contenders that take turns, and the table of what they take. It knows nothing of the library, so that `benches/peers` has it
//! as well.

use std::time::{Duration, Instant};

/// What a table needs of a contender.
pub struct Timed<'a> {
    pub name: &'static str,
    /// Nanoseconds of one of so many operations.
    pub slice: Box<dyn Fn(usize) -> f64 + 'a>,
    /// Allocations of one operation.
    pub once: Box<dyn Fn() -> u64 + 'a>,
}

impl<'a> Timed<'a> {
    /// Does something with one of these texts after the other, in random order. The text was just copied, as if it had come
    /// in a header.
    pub fn by_text(name: &'static str, texts: &'a [String], run: impl Fn(&str) + 'a) -> Self {
        let run = std::rc::Rc::new(run);
        let once = std::rc::Rc::clone(&run);
        Self {
            name,
            slice: Box::new(move |count| of_texts(texts, count, &*run)),
            once: Box::new(move || {
                let text = texts[random(texts.len())].clone();
                allocation_counter::measure(|| once(&text)).count_total
            }),
        }
    }

    /// The same on two threads at once: the time of one operation on one of them.
    pub fn by_text_on_two_threads(name: &'static str, texts: &'a [String], run: impl Fn(&str) + Sync + 'a) -> Self {
        Self {
            name,
            slice: Box::new(move |count| {
                std::thread::scope(|scope| {
                    let threads = [(); 2].map(|()| scope.spawn(|| of_texts(texts, count, &run)));
                    threads.map(|thread| thread.join().expect("it does not panic")).iter().sum::<f64>() / 2.0
                })
            }),
            once: Box::new(|| 0),
        }
    }
}

/// In batches that fit into the cache of a core.
fn of_texts(texts: &[String], count: usize, run: impl Fn(&str)) -> f64 {
    const BATCH: usize = 256;
    let batches = count.div_ceil(BATCH).max(1);
    let mut taken = 0.0;
    for _ in 0..batches {
        let batch: Vec<String> = (0..BATCH).map(|_| texts[random(texts.len())].clone()).collect();
        taken += time(|| batch.iter().for_each(|text| run(text)));
    }
    taken / (batches * BATCH) as f64
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the real clock")]
pub fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    nanos(start.elapsed())
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// Any number below the bound (xorshift): fast, and another sequence in each thread.
pub fn random(bound: usize) -> usize {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicU64, Ordering::Relaxed},
    };
    static THREADS: AtomicU64 = AtomicU64::new(1);
    thread_local!(static STATE: Cell<u64> =
        Cell::new(THREADS.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    STATE.with(|state| {
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.set(next);
        (next >> 16) as usize % bound
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measured contenders.
pub struct Measured {
    rows: Vec<(&'static str, Vec<f64>, u64)>,
}

pub fn measure(contenders: &[Timed<'_>]) -> Measured {
    const ROUNDS: usize = 31;
    // The quickest of some: a slice that was interrupted would make all of this contender's short, and cold.
    let quickest = |contender: &Timed<'_>| (0..9).map(|_| (contender.slice)(50)).fold(f64::INFINITY, f64::min);
    let counts: Vec<usize> =
        contenders.iter().map(|contender| (2e6 / quickest(contender)).max(20.0) as usize).collect();
    let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..ROUNDS {
        // Every round starts at another contender, so that none profits from its neighbours.
        for offset in 0..contenders.len() {
            let index = (round + offset) % contenders.len();
            rounds[index].push((contenders[index].slice)(counts[index]));
        }
    }
    let rows = contenders.iter().zip(rounds);
    Measured { rows: rows.map(|(contender, taken)| (contender.name, taken, (contender.once)())).collect() }
}

impl Measured {
    /// What one of these names takes beyond another, as a part of what the reference takes in the same round; and how many
    /// allocations it makes beyond it.
    pub fn added(&self, name: &str, beyond: &str, reference: &str) -> (f64, i64) {
        let row = |name: &str| self.rows.iter().find(|(held, ..)| *held == name).expect("a contender's name");
        let ((_, whole, allocations), (_, part, before), (_, bare, _)) = (row(name), row(beyond), row(reference));
        let mut parts: Vec<f64> =
            whole.iter().zip(part).zip(bare).map(|((whole, part), bare)| (whole - part) / bare).collect();
        (median(&mut parts), *allocations as i64 - *before as i64)
    }

    /// Prints all of them against the one of this name.
    pub fn print(&self, title: &str, reference: &str) {
        println!("{title:<42} {:>9} {:>10} {:>7} {:>7}", "ns", "added ns", "ratio", "allocs");
        let (_, bare, _) = self.rows.iter().find(|(name, ..)| *name == reference).expect("a contender's name");
        for (name, taken, allocations) in &self.rows {
            let mut ratio: Vec<f64> = taken.iter().zip(bare).map(|(taken, bare)| taken / bare).collect();
            let mut added: Vec<f64> = taken.iter().zip(bare).map(|(taken, bare)| taken - bare).collect();
            println!(
                "{name:<42} {:>9.0} {:>10.0} {:>7.3} {allocations:>7}",
                median(&mut taken.clone()),
                median(&mut added),
                median(&mut ratio),
            );
        }
        println!();
    }
}
