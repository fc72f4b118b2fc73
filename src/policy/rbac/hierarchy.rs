//! Inheritance, worked out.

use crate::policy::rbac::{load::Direct, reach::Reach};

/// Merges into each role what it inherits: juniors first, so that each role is visited once.
///
/// # Errors
/// The positions of a cycle, its first one repeated at the end.
pub(super) fn flatten(direct: &[Direct]) -> Result<Vec<Reach>, Vec<usize>> {
    let mut seniors = vec![Vec::new(); direct.len()];
    let mut missing: Vec<usize> = direct.iter().map(|role| role.written.inherits.len()).collect();
    for (senior, role) in direct.iter().enumerate() {
        for junior in &role.written.inherits {
            if let Some(seniors) = seniors.get_mut(*junior) {
                seniors.push(senior);
            }
        }
    }
    let mut reaches: Vec<Option<Reach>> = vec![None; direct.len()];
    let mut next: Vec<usize> = (0..direct.len()).filter(|role| missing.get(*role) == Some(&0)).collect();
    while let Some(position) = next.pop() {
        let Some(role) = direct.get(position) else { continue };
        let mut reach = role.reach.clone();
        for junior in role.written.inherits.iter().filter_map(|junior| reaches.get(*junior)).flatten() {
            reach.merge(junior);
        }
        if let Some(slot) = reaches.get_mut(position) {
            *slot = Some(reach);
        }
        for senior in seniors.get(position).into_iter().flatten() {
            if let Some(missing) = missing.get_mut(*senior) {
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    next.push(*senior);
                }
            }
        }
    }
    match reaches.iter().position(Option::is_none) {
        None => Ok(reaches.into_iter().flatten().collect()),
        Some(stuck) => Err(cycle(direct, &reaches, stuck)),
    }
}

/// Walks from a role that never became free: each such role inherits another one, so the walk comes back.
fn cycle(direct: &[Direct], reaches: &[Option<Reach>], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    let mut seen = vec![false; direct.len()];
    let mut at = start;
    loop {
        if let Some(seen) = seen.get_mut(at) {
            *seen = true;
        }
        let stuck = |role: &&usize| reaches.get(**role).is_some_and(Option::is_none);
        let Some(junior) = direct.get(at).and_then(|role| role.written.inherits.iter().find(stuck)) else {
            return path;
        };
        path.push(*junior);
        if seen.get(*junior).copied().unwrap_or(true) {
            return path.into_iter().skip_while(|role| role != junior).collect();
        }
        at = *junior;
    }
}
