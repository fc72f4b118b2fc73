use crate::principal::Cell;

/// What a role has, with everything that it inherits.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) cells: Box<[Cell]>,
    /// The roles that it inherits, and itself.
    pub(super) roles: Bits,
}

impl Reach {
    pub(super) fn none(permissions: usize, roles: usize) -> Self {
        Self { cells: vec![Cell::default(); permissions.div_ceil(64)].into(), roles: Bits::none(roles) }
    }

    pub(super) fn merge(&mut self, junior: &Self) {
        merge(&mut self.cells, &junior.cells);
        self.roles.merge(&junior.roles);
    }

    /// The 64 permissions that this one is among, and its bit.
    pub(super) fn cell_mut(&mut self, permission: usize) -> Option<(&mut Cell, u64)> {
        self.cells.get_mut(permission / 64).map(|cell| (cell, 1 << (permission % 64)))
    }

    fn cell(&self, permission: usize) -> Cell {
        let bit = 1 << (permission % 64);
        self.cells.get(permission / 64).map_or(Cell::default(), |cell| Cell {
            grants: cell.grants & bit,
            own: cell.own & bit,
            denies: cell.denies & bit,
        })
    }

    pub(super) fn grants(&self, permission: usize) -> bool {
        self.cell(permission).grants != 0
    }

    pub(super) fn grants_own(&self, permission: usize) -> bool {
        self.cell(permission).own != 0
    }

    pub(super) fn denies(&self, permission: usize) -> bool {
        self.cell(permission).denies != 0
    }

    pub(super) fn denies_anything(&self) -> bool {
        self.cells.iter().any(|cell| cell.denies != 0)
    }
}

pub(super) fn merge(cells: &mut [Cell], more: &[Cell]) {
    cells.iter_mut().zip(more).for_each(|(cell, more)| cell.add(more));
}

/// A set of positions, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    pub(super) fn none(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)].into())
    }

    pub(super) fn set(&mut self, position: usize) {
        if let Some(word) = self.0.get_mut(position / 64) {
            *word |= 1 << (position % 64);
        }
    }

    pub(super) fn has(&self, position: usize) -> bool {
        self.0.get(position / 64).is_some_and(|word| word & (1 << (position % 64)) != 0)
    }

    fn merge(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_at_the_edges_of_words() {
        let mut bits = Bits::none(130);
        for position in [0, 63, 64, 127, 128, 129] {
            assert!(!bits.has(position), "{position}");
            bits.set(position);
            assert!(bits.has(position), "{position}");
        }
        assert!(!bits.has(1) && !bits.has(65) && !bits.has(1_000));
        let mut merged = Bits::none(130);
        merged.set(1);
        merged.merge(&bits);
        assert!(merged.has(1) && merged.has(129) && !merged.has(2));
    }

    #[test]
    fn cells_at_the_edges_of_words() {
        let mut reach = Reach::none(130, 1);
        for permission in [0, 63, 64, 129] {
            let (cell, bit) = reach.cell_mut(permission).unwrap();
            cell.grants |= bit;
            assert!(reach.grants(permission) && !reach.grants_own(permission) && !reach.denies(permission));
        }
        assert!(!reach.grants(1) && !reach.grants(128) && !reach.grants(1_000));
        assert!(reach.cell_mut(1_000).is_none());
    }
}
