//! How many different kinds of proof a person gave.

use super::Principal;

/// The kinds of factors, and the methods of each (RFC 8176 §2). What is in none of them is no factor: where somebody is (`geo`),
/// what is guessed about them (`rba`), that they were there (`user`), over how many channels (`mca`), the system's own word (`wia`).
const KINDS: [&[&str]; 3] = [
    // What they know.
    &["pwd", "pin", "kba"],
    // What they have.
    &["otp", "sms", "hwk", "swk", "sc", "tel", "pop"],
    // What they are.
    &["face", "fpt", "iris", "retina", "vbm"],
];

impl Principal {
    /// How many different kinds of factors proved who they are, as the issuer tells it in `amr` (RFC 8176), 0 to 3:
    ///
    /// | kind | methods |
    /// |---|---|
    /// | knowledge | `pwd`, `pin`, `kba` |
    /// | possession | `otp`, `sms`, `hwk`, `swk`, `sc`, `tel`, `pop` |
    /// | inherence | `face`, `fpt`, `iris`, `retina`, `vbm` |
    ///
    /// Two methods of one kind are one factor: a password and a PIN are two things that one phishing page asks for. `mfa` counts as
    /// two, because the issuer says so. Other methods count for nothing.
    ///
    /// ```
    /// use portcullis::{Principal, PrincipalKind};
    ///
    /// let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt");
    /// assert_eq!(alice.clone().methods(["pwd", "pin"]).build().factors(), 1);
    /// assert_eq!(alice.methods(["pwd", "otp"]).build().factors(), 2);
    /// ```
    #[must_use]
    pub fn factors(&self) -> u8 {
        let has = |method: &str| self.methods().contains(method);
        let kinds = KINDS.iter().filter(|methods| methods.iter().any(|method| has(method))).count();
        let told = if has("mfa") { 2 } else { 0 };
        u8::try_from(kinds).unwrap_or(u8::MAX).max(told)
    }
}
