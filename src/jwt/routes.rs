//! From the `iss` that a token claims to the profile that decides about it.

use std::{collections::HashMap, fmt};

use crate::{
    error::ConfigError,
    jwt::profile::{Name, Profile},
};

/// Up to here comparing one by one is faster than hashing.
const FEW: usize = 8;

/// The profiles, and the `iss` that each answers for. The table is made once: whatever a client claims, nothing is added,
/// and its hash has a random key.
#[derive(Default)]
pub(super) struct Routes {
    profiles: Vec<Profile>,
    /// For each `iss` the profile and the name in it.
    table: HashMap<Box<str>, (usize, usize)>,
}

impl Routes {
    pub(super) fn add(&mut self, profile: Profile) -> Result<(), ConfigError> {
        let at = self.profiles.len();
        for (place, name) in profile.names.iter().enumerate() {
            if self.table.insert(name.iss.clone(), (at, place)).is_some() {
                return Err(ConfigError::new("JWT issuer", format!("{:?}", name.iss), "stands twice"));
            }
        }
        self.profiles.push(profile);
        Ok(())
    }

    /// The profile for an `iss`, equal byte for byte: its place, itself, and its name.
    pub(super) fn find(&self, iss: &str) -> Option<(usize, &Profile, &Name)> {
        if self.table.len() <= FEW {
            let mut all = self
                .profiles
                .iter()
                .enumerate()
                .flat_map(|(place, profile)| profile.names.iter().map(move |name| (place, profile, name)));
            return all.find(|(.., name)| *name.iss == *iss);
        }
        let (place, name) = *self.table.get(iss)?;
        let profile = self.profiles.get(place)?;
        Some((place, profile, profile.names.get(name)?))
    }

    /// Every `iss` that is taken.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.profiles.iter().flat_map(|profile| profile.names.iter().map(|name| &*name.iss))
    }

    pub(super) fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The profile at a place.
    pub(super) fn profile(&self, place: usize) -> Option<&Profile> {
        self.profiles.get(place)
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.profiles).finish()
    }
}
