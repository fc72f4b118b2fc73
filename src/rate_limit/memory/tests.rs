use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::rate_limit::{KeyPart, LimitKey, Quota};

const SECOND: u64 = 1_000_000_000;

fn draw(limits: &MemoryLimits, parts: &[KeyPart<'_>], quotas: &[Quota], now: u64) -> Taken {
    let key = LimitKey::new("client", parts);
    let charges: Vec<_> = quotas.iter().map(|quota| Charge::new(key, quota)).collect();
    limits.take_from(&Draw::new(&charges), now)
}

fn take_at(limits: &MemoryLimits, quotas: &[Quota], address: IpAddr, now: u64) -> bool {
    draw(limits, &[KeyPart::network(address)], quotas, now).is_granted()
}

fn take(limits: &MemoryLimits, quotas: &[Quota], number: u32, now: u64) -> bool {
    take_at(limits, quotas, Ipv4Addr::from(number).into(), now)
}

/// How many cells are in debt.
fn held(limits: &MemoryLimits, now: u64) -> usize {
    limits.buckets.iter().flat_map(|bucket| &bucket.0).filter(|cell| cell.tat.load(Acquire) > now).count()
}

#[test]
fn the_memory_bound_is_as_documented() {
    let bytes = |limits: &MemoryLimits| {
        let shared: usize = limits.shared.iter().map(|area| std::mem::size_of_val(&**area)).sum();
        std::mem::size_of_val(&*limits.buckets) + shared
    };
    assert_eq!((std::mem::size_of::<Cell>(), std::mem::size_of::<Bucket>()), (16, 64));
    let limits = MemoryLimits::new();
    assert!(bytes(&limits) <= 1_900_000, "{} bytes", bytes(&limits));
    assert!(bytes(&limits) <= limits.capacity() * 29);
    assert!(MemoryLimits::with_capacity(0).is_err());
    assert_eq!(
        MemoryLimits::with_capacity(usize::MAX).unwrap_err().to_string(),
        format!("capacity: {} is not 1 to 67108864 counts", usize::MAX)
    );
    assert_eq!(MemoryLimits::with_capacity(1).unwrap().capacity(), 4);
}

#[test]
fn a_flood_of_keys_takes_no_memory_and_forgets_nobody_in_debt() {
    let limits = MemoryLimits::with_capacity(1_000).unwrap();
    let hourly = [Quota::per_hour(10)];
    let (buckets, start) = (limits.buckets.len(), limits.buckets.as_ptr());
    for _ in 0..3 {
        assert!(take(&limits, &hourly, 7, 1));
    }
    for number in 1_000..100_000 {
        take(&limits, &hourly, number, 1);
    }
    assert_eq!((limits.buckets.len(), limits.buckets.as_ptr()), (buckets, start));
    for _ in 0..7 {
        assert!(take(&limits, &hourly, 7, 1), "what was there goes on counting");
    }
    assert!(!take(&limits, &hourly, 7, 1));
}

#[test]
fn filled_to_capacity_nearly_everybody_has_a_cell() {
    for capacity in [1_000_u32, 20_000] {
        let limits = MemoryLimits::with_capacity(capacity as usize).unwrap();
        let daily = [Quota::per_day(1)];
        let granted = (0..capacity).filter(|number| take(&limits, &daily, *number, 0)).count();
        let held = held(&limits, 0);
        assert!(held * 1_000 >= capacity as usize * 985 && granted >= held, "{held}, {granted} of {capacity}");
    }
}

#[test]
fn whole_cells_are_given_away_and_debt_is_not() {
    let limits = MemoryLimits::with_capacity(1).unwrap();
    let (hour, second) = ([Quota::per_hour(1)], [Quota::per_second(1)]);
    assert!(take(&limits, &hour, 7, 0));
    for wave in 0..50_u32 {
        let now = u64::from(wave) * 2 * SECOND;
        // Seven others fill both buckets; two seconds later they are whole again.
        for number in 0..7 {
            assert!(take(&limits, &second, 1_000 * (wave + 1) + number, now), "wave {wave}, key {number}");
        }
        assert!(!take(&limits, &hour, 7, now), "wave {wave}");
        for number in 0..7 {
            assert!(!take(&limits, &second, 1_000 * (wave + 1) + number, now), "wave {wave}, key {number}");
        }
    }
}

/// A table of two buckets, full of debt for an hour.
fn full() -> MemoryLimits {
    let limits = MemoryLimits::with_capacity(1).unwrap();
    let hour = [Quota::per_hour(1)];
    (0..8).for_each(|number| assert!(take(&limits, &hour, number, 0)));
    assert_eq!(held(&limits, 0), 8);
    limits
}

#[test]
fn where_all_is_in_debt_newcomers_share_with_their_neighbours() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    for (name, first, neighbour) in
        [("one /24", "192.0.2.1", "192.0.2.200"), ("one /48", "2001:db8:1:2::1", "2001:db8:1:ffff::1")]
    {
        let limits = full();
        let two = [Quota::per_hour(2)];
        assert!(take_at(&limits, &two, address(first), 1), "{name}");
        assert!(take_at(&limits, &two, address(neighbour), 1), "{name}");
        assert!(!take_at(&limits, &two, address(first), 1), "{name}: the two of them have one quota");
        assert!(!take_at(&limits, &two, address(neighbour), 1), "{name}");
        (0..8).for_each(|number| {
            assert!(!take(&limits, &[Quota::per_hour(1)], number, 1), "{name}: nobody was forgotten")
        });
        // An hour later there is room, and each has a whole quota.
        let later = 3_600 * SECOND + 1;
        for address in [address(first), address(neighbour)] {
            assert!(take_at(&limits, &two, address, later) && take_at(&limits, &two, address, later), "{name}");
            assert!(!take_at(&limits, &two, address, later), "{name}");
        }
    }
}

#[test]
fn where_counts_are_shared_nobodys_debt_is_cut_and_long_ones_keep_no_short_one_waiting() {
    for (name, long, short, waits) in [
        ("of another length", Quota::per_day(2), Quota::per_second(1), false),
        ("of about the same length", Quota::per_hour(2), Quota::per_minute(1).burst(11), true),
    ] {
        let limits = full();
        let (long, short) = ([long], [short]);
        // Until all cells of the long ones are in debt.
        let all = 1_000..1_200;
        let granted = all.clone().filter(|number| take(&limits, &long, number << 8, 1)).count();
        let refused = all.clone().filter(|number| !take(&limits, &long, number << 8, 1)).count();
        assert!(granted >= 8 && refused == 200, "{name}: {granted} and {refused}");
        let passed = (2_000..2_200).filter(|number| take(&limits, &short, number << 8, 1)).count();
        assert_eq!(passed == 0, waits, "{name}: {passed}");
        // A second or ten minutes of that.
        assert!(all.clone().all(|number| !take(&limits, &long, number << 8, 900 * SECOND)), "{name}");
    }
}

#[test]
fn several_quotas_find_room_or_share_without_meeting_themselves() {
    let four = [
        Quota::per_second(100).named("a"),
        Quota::per_minute(3).named("b"),
        Quota::per_hour(1_000).named("c"),
        Quota::per_day(1_000).named("d"),
    ];
    for limits in [MemoryLimits::with_capacity(1).unwrap(), full()] {
        for _ in 0..3 {
            assert!(take(&limits, &four, 99, 0));
        }
        assert!(!take(&limits, &four, 99, 0));
    }
    let limits = MemoryLimits::with_capacity(1).unwrap();
    for _ in 0..3 {
        assert!(take(&limits, &four, 99, 0));
    }
    assert!(!take(&limits, &four[1..2], 99, 0), "alone it is the same count");
    assert!(take(&limits, &four[2..], 99, 0));
}

/// What it gives; fails if it does not end within half a minute.
fn ends<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(run()));
    waits.recv_timeout(std::time::Duration::from_secs(30)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_draw_does_not_give_its_own_cell_away() {
    let (second, hour) = (Quota::per_second(1), Quota::per_hour(10).named("hour"));
    for (name, quotas) in
        [("it comes first", [second.clone(), hour.clone()]), ("it comes last", [hour.clone(), second.clone()])]
    {
        let second = [second.clone()];
        ends(name, move || {
            let limits = MemoryLimits::with_capacity(1).unwrap();
            assert!(take(&limits, &second, 7, 0));
            (100..107).for_each(|number| assert!(take(&limits, &[Quota::per_hour(1)], number, 0)));
            // What is whole by now is the draw's own cell, and no other.
            assert_eq!((held(&limits, 0), held(&limits, 2 * SECOND)), (8, 7));
            assert!(take(&limits, &quotas, 7, 2 * SECOND), "{name}");
            assert!(!take(&limits, &quotas, 7, 2 * SECOND), "{name}: a second has one");
            for second in 3..12 {
                assert!(take(&limits, &quotas, 7, second * SECOND), "{name}: an hour has ten");
            }
            assert!(!take(&limits, &quotas, 7, 12 * SECOND), "{name}");
        });
    }
}

/// A few cells, keys under one to eight quotas, networks with those around them: every draw ends, and is granted what there
/// is.
#[test]
fn draws_of_several_charges_end() {
    let quotas: Vec<Quota> = (0..8_u32)
        .map(|number| match number % 3 {
            0 => Quota::per_second(2),
            1 => Quota::per_second(5).burst(20),
            _ => Quota::per_minute(30),
        })
        .enumerate()
        .map(|(number, quota)| quota.named(format!("quota-{number}")))
        .collect();
    for capacity in [1, 4, 9, 40] {
        let quotas = quotas.clone();
        ends(&format!("room for {capacity}"), move || {
            let limits = MemoryLimits::with_capacity(capacity).unwrap();
            let (mut state, mut now, mut granted) = (42_u64, 0, 0);
            let mut random = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            for step in 0..20_000_u32 {
                now += [0, 0, 0, SECOND / 20, SECOND / 5, 3 * SECOND][random(6) as usize];
                let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, random(12) as u16, 0, 0, 0, 1).into();
                let (inner, outer) = ([KeyPart::network(address)], [KeyPart::wide_network(address)]);
                let first = random(8) as usize;
                let charged = &quotas[first..(first + 1 + random(4) as usize).min(8)];
                let mut charges: Vec<_> =
                    charged.iter().map(|quota| Charge::new(LimitKey::new("client", &inner), quota)).collect();
                if random(2) == 0 {
                    charges.extend(charged.iter().map(|quota| Charge::new(LimitKey::new("client", &outer), quota)));
                }
                if random(2) == 0 {
                    charges.reverse();
                }
                let draw = Draw::new(&charges);
                let draw = if random(5) == 0 { draw.counting_refused() } else { draw };
                let taken = limits.take_from(&draw, now);
                assert!(taken.is_granted() || taken.retry_after_nanos() > Some(1), "step {step}: tried in vain");
                granted += u32::from(taken.is_granted());
            }
            assert!((500..19_500).contains(&granted), "{granted} granted: both were seen");
        });
    }
}

#[test]
fn a_charge_that_stands_twice_is_refused() {
    let limits = MemoryLimits::new();
    let twice = [Quota::per_second(1), Quota::per_hour(1)];
    assert_eq!(draw(&limits, &[], &twice, 0), Taken::too_costly(1));
    assert_eq!(draw(&limits, &[], &[], 0), Taken::too_costly(0));
    let many: Vec<_> = (0..=MAX_CHARGES).map(|number| Quota::per_second(1).named(number.to_string())).collect();
    assert_eq!(draw(&limits, &[], &many, 0), Taken::too_costly(0));
    assert!(draw(&limits, &[], &many[1..], 0).is_granted());
}

#[test]
fn what_is_taken_back_never_opens() {
    let limits = MemoryLimits::with_capacity(1).unwrap();
    let quota = [Quota::per_hour(10)];
    let charge = Charge::new(LimitKey::new("client", &[]), &quota[0]);
    let place = limits.place(&charge);
    let hour = 3_600 * SECOND;
    let _ = draw(&limits, &[], &quota, hour);
    let (cell, before) = limits.find(&place).unwrap();
    assert_eq!(before, hour + hour / 10);

    let step = Move { seat: Seat::Own(cell), fingerprint: place.fingerprint, before, after: before + hour / 10 };
    assert!(step.make() && !step.make());
    step.undo(hour);
    assert_eq!(limits.find(&place).unwrap().1, before, "nobody was there: as before");
    assert!(step.make());
    let _ = draw(&limits, &[], &quota, hour);
    step.undo(hour);
    assert_eq!(limits.find(&place).unwrap().1, before + hour / 10, "what another took stays taken");

    // Long after, another took from a whole quota: what is given back is the price, not the time.
    assert!(swap(&cell.tat, before + hour / 10, before) && step.make());
    let _ = draw(&limits, &[], &quota, 9 * hour);
    step.undo(hour);
    assert!(limits.find(&place).unwrap().1 >= 9 * hour);

    // Somebody else has the cell by now.
    cell.fingerprint.store(place.fingerprint ^ 1, Relaxed);
    let others = cell.tat.load(Acquire);
    step.undo(hour);
    assert_eq!(cell.tat.load(Acquire), others);
    cell.fingerprint.store(place.fingerprint, Relaxed);
    cell.tat.store(CLAIMED, Relaxed);
    step.undo(hour);
    assert_eq!(cell.tat.load(Acquire), CLAIMED, "a cell that is being given away is left alone");
    assert!(limits.find(&place).is_none());
}

#[test]
fn threads_share_one_count_from_the_first_request_on() {
    for round in 0..200 {
        let limits = MemoryLimits::with_capacity(64).unwrap();
        let some = [Quota::per_hour(3)];
        let granted: usize = std::thread::scope(|scope| {
            let run = || (0..4).filter(|_| take(&limits, &some, 7, 5)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 3, "round {round}");
    }
}

/// Eight cells change hands between two groups of keys, which use all of them under one quota and under two; each key gets
/// its own and no more.
#[test]
fn threads_that_fight_for_cells_never_open_a_quota() {
    let limits = MemoryLimits::with_capacity(1).unwrap();
    let one = [Quota::per_second(4)];
    let two = [Quota::per_second(4), Quota::per_second(6).burst(3).named("other")];
    let (keys, phases, rounds) = (12_u32, 60, 20);
    let granted: Vec<AtomicU64> = (0..keys).map(|_| AtomicU64::new(0)).collect();
    // All threads are of one time: who is late by that would find a cell given away that was not whole then.
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (limits, barrier, granted, one, two) = (&limits, &barrier, &granted, &one, &two);
            scope.spawn(move || {
                for phase in 0..phases {
                    for round in 0..rounds {
                        // A second of asking, then two in which all becomes whole.
                        let now = u64::from(phase) * 3 * SECOND + round * SECOND / rounds;
                        barrier.wait();
                        for step in 0..12 {
                            // Of six keys, four have one count and two have two.
                            let key = phase % 2 * 6 + (step * 5 + thread) % 6;
                            let quotas: &[Quota] = if key % 6 < 4 { one } else { two };
                            if take(limits, quotas, key << 16, now) {
                                granted[key as usize].fetch_add(1, std::sync::atomic::Ordering::AcqRel);
                            }
                        }
                    }
                }
            });
        }
    });
    for (key, granted) in granted.into_iter().enumerate() {
        // Four or three at once, and what comes back until the last round, each phase.
        let each = if key % 6 < 4 { 4 + 3 } else { 3 + 5 };
        assert_eq!(granted.into_inner(), u64::from(phases) / 2 * each.min(4 + 3), "key {key}");
    }
    assert!(limits.buckets.iter().flat_map(|bucket| &bucket.0).all(|cell| cell.tat.load(Acquire) != CLAIMED));
}
