use super::*;
use crate::principal::{PrincipalKind, Terms};

const ALWAYS: Terms = Terms { from: 0, until: u64::MAX, issuer: 0, generation: 1 };

#[test]
fn a_bucket_is_one_line_of_the_cache() {
    assert_eq!(size_of::<Bucket>(), 64);
}

fn alice(key: &[u8], terms: Terms) -> Principal {
    Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt").keep(terms, key)
}

fn key(number: u64) -> Vec<u8> {
    [[b'a'; 32].as_slice(), &number.to_le_bytes()].concat()
}

/// Spreads numbers over the table as a hash does.
const fn hash(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn get(table: &Table, number: u64, now: u64) -> bool {
    table.get(hash(number), &key(number), now, |_| Some(1)).is_some()
}

fn insert(table: &Table, number: u64, terms: Terms, now: u64) {
    let key = key(number);
    table.insert(hash(number), &key, alice(&key, terms), now);
}

#[test]
fn one_hash_and_two_keys() {
    // Its two homes differ.
    const HASH: u64 = (1 << 63) + 7;
    let table = Table::new(100, 1 << 20);
    for number in 0..10 {
        table.insert(HASH, &key(number), alice(&key(number), ALWAYS), 0);
    }
    for number in 0..20 {
        assert_eq!(table.get(HASH, &key(number), 0, |_| Some(1)).is_some(), number < 10, "{number}");
    }
    assert!(table.get(HASH, &[], 0, |_| Some(1)).is_none());
    let longer = [key(1), key(1)].concat();
    assert!(table.get(HASH, &longer, 0, |_| Some(1)).is_none());
}

#[test]
fn terms_to_the_nanosecond() {
    let terms = Terms { from: 10, until: 20, issuer: 3, generation: 1 };
    let rows = [
        ("clock set back", 9, Some(1), false, true),
        ("begin", 10, Some(1), true, true),
        ("last moment", 19, Some(1), true, true),
        ("end", 20, Some(1), false, false),
        ("other keys", 15, Some(2), false, false),
        ("no such issuer", 15, None, false, false),
    ];
    for (name, now, generation, served, stays) in rows {
        let table = Table::new(1, 1 << 20);
        insert(&table, 1, terms, 15);
        let found = table.get(hash(1), &key(1), now, |issuer| {
            assert_eq!(issuer, 3, "{name}");
            generation
        });
        assert_eq!(found.is_some(), served, "{name}");
        assert_eq!(table.entries() == 1, stays, "{name}");
        assert_eq!(table.bytes() == 0, !stays, "{name}");
    }
}

#[test]
fn bounds_hold_whatever_comes() {
    let one = alice(&key(0), ALWAYS).size();
    for (entries, bytes, most) in [(1, 1 << 20, 1), (50, 1 << 20, 50), (1000, one * 30, 30), (1000, one, 1)] {
        let table = Table::new(entries, bytes);
        for number in 0..3000 {
            insert(&table, number, ALWAYS, 0);
            assert!(get(&table, number, 0), "{number} is there once it was put there");
            assert!(table.entries() <= most && table.bytes() <= bytes);
        }
        assert_eq!(table.bytes(), table.entries() * one);
        assert_eq!(table.evictions(), 3000 - u64::try_from(table.entries()).unwrap());
    }
    let table = Table::new(1000, one - 1);
    insert(&table, 1, ALWAYS, 0);
    assert!(!get(&table, 1, 0) && table.entries() == 0, "what does not fit alone is not kept");
}

#[test]
fn a_table_takes_as_many_as_it_is_meant_to() {
    let table = Table::new(6000, 1 << 30);
    (0..6000).for_each(|number| insert(&table, number, ALWAYS, 0));
    assert_eq!((table.entries(), table.evictions()), (6000, 0));
    assert!((0..6000).all(|number| get(&table, number, 0)));
    assert_eq!(table.hits(), 6000);
}

#[test]
fn an_entry_replaces_itself() {
    let table = Table::new(10, 1 << 20);
    for _ in 0..5 {
        insert(&table, 1, ALWAYS, 0);
    }
    assert_eq!((table.entries(), table.evictions()), (1, 0));
}

#[test]
fn what_is_in_use_stays_and_what_has_ended_goes_first() {
    let table = Table::new(400, 1 << 20);
    let in_use = 0..100;
    for number in in_use.clone() {
        insert(&table, number, ALWAYS, 0);
    }
    for number in 1000..4000 {
        insert(&table, number, ALWAYS, 0);
        if number % 50 == 0 {
            in_use.clone().for_each(|number| {
                get(&table, number, 0);
            });
        }
    }
    let kept = in_use.filter(|number| get(&table, *number, 0)).count();
    assert!(kept >= 95, "{kept} of 100");

    let table = Table::new(16, 1 << 20);
    for number in 0..8 {
        insert(&table, number, Terms { until: 5, ..ALWAYS }, 0);
        insert(&table, number + 100, ALWAYS, 0);
    }
    for number in 200..208 {
        insert(&table, number, ALWAYS, 5);
    }
    assert_eq!((table.entries(), table.evictions()), (16, 0));
}

#[test]
fn threads_agree_on_the_bounds() {
    let one = alice(&key(0), ALWAYS).size();
    let table = Table::new(64, one * 40);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..2000_u64 {
                    let number = (round * 7 + thread) % 200;
                    if !get(table, number, round) {
                        insert(table, number, Terms { until: round + 50, ..ALWAYS }, round);
                    }
                    assert!(table.entries() <= 64 && table.bytes() <= one * 40);
                }
            });
        }
    });
    assert_eq!(table.bytes(), table.entries() * one);
}
