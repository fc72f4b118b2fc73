//! Where tokens come in, and what a request must prove besides: the same for every authenticator of bearer tokens.

use http::HeaderName;

#[cfg(feature = "dpop")]
use crate::jwt::bound::{Dpop, Prover};
use crate::{
    attempt::Attempt,
    authn::{Identity, Outcome},
    challenge::Challenge,
    clock::Instants,
    error::ConfigError,
    head::RequestHead,
    jwt::{
        CookiePlace, Refusal,
        bound::Demands,
        place::{Places, Told},
        resource_metadata::{Accepted, MetadataUrl},
    },
    now::Now,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};

/// Says whether a token is good: the token alone, not what it is bound to.
pub(super) trait Verify: Sync {
    /// Whether a token in `Authorization` is one of this kind.
    fn takes(&self, token: &str) -> bool;

    /// What is remembered of exactly these bytes.
    fn recall(&self, token: &[u8], at: Instants) -> Option<Result<Principal, Rejection>>;

    /// Answers without waiting, if it can. `recalled` says that nothing is remembered: it was just looked for.
    fn verify_now(
        &self,
        token: &str,
        at: Instants,
        attempt: Attempt<'_>,
        recalled: bool,
    ) -> Now<Result<Principal, Rejection>>;

    /// Answers.
    fn verify(
        &self,
        token: &str,
        at: Instants,
        attempt: Attempt<'_>,
    ) -> impl Future<Output = Result<Principal, Rejection>> + Send;
}

/// The way in, as it is configured.
#[derive(Clone, Debug)]
pub(super) struct EntranceRules {
    pub(super) realm: String,
    pub(super) authorization: bool,
    pub(super) headers: Vec<String>,
    pub(super) cookies: Vec<CookiePlace>,
    pub(super) certificate_bound: bool,
    pub(super) resource_metadata: Option<MetadataUrl>,
    #[cfg(feature = "dpop")]
    pub(super) dpop: Option<Dpop>,
}

impl EntranceRules {
    pub(super) fn new() -> Self {
        Self {
            realm: "api".to_owned(),
            authorization: true,
            headers: Vec::new(),
            cookies: Vec::new(),
            certificate_bound: false,
            resource_metadata: None,
            #[cfg(feature = "dpop")]
            dpop: None,
        }
    }

    /// The algorithms of proofs, and whether a proof must be there.
    fn dpop_demands(&self) -> (Vec<&'static str>, bool) {
        #[cfg(feature = "dpop")]
        if let Some(dpop) = &self.dpop {
            return (dpop.algorithm_names(), dpop.is_required());
        }
        (Vec::new(), false)
    }

    /// Builds it for who takes tokens of these issuers.
    pub(super) fn build(self, issuers: Vec<&str>) -> Result<Entrance, ConfigError> {
        let (dpop_algorithms, dpop_required) = self.dpop_demands();
        #[cfg_attr(not(feature = "dpop"), expect(unused_mut, reason = "only DPoP changes them"))]
        let mut places = Places::new(self.authorization, self.headers, self.cookies)?;
        let metadata = match &self.resource_metadata {
            None => None,
            Some(metadata) => Some(metadata.check(&Accepted {
                issuers,
                bearer: self.authorization && !dpop_required,
                certificate_required: self.certificate_bound,
                dpop_algorithms,
                dpop_required,
            })?),
        };
        let offer = |scheme: &str| {
            let offer = Challenge::new(scheme, &self.realm)?;
            metadata.map_or(Ok(offer.clone()), |url| offer.with("resource_metadata", url))
        };
        let challenge = offer(places.scheme())?;
        #[cfg_attr(not(feature = "dpop"), expect(unused_mut, reason = "only DPoP adds to them"))]
        let mut invalid_token = vec![challenge.clone().with("error", "invalid_token")?];
        #[cfg_attr(not(feature = "dpop"), expect(unused_mut, reason = "only DPoP adds to them"))]
        let mut offers = vec![challenge];
        #[cfg_attr(not(feature = "dpop"), expect(unused_mut, reason = "only DPoP changes them"))]
        let mut demands = Demands { key: false, certificate: self.certificate_bound };
        #[cfg(feature = "dpop")]
        let prover = match self.dpop {
            None => None,
            Some(_) if !self.authorization => {
                return Err(ConfigError::new("DPoP", "without Authorization", "has no place: its scheme stands there"));
            }
            Some(dpop) => {
                let with_proof = offer("DPoP")?.with("algs", &dpop.algorithm_names().join(" "))?;
                (places.dpop, demands.key) = (true, dpop.is_required());
                if demands.key {
                    // Bearer would be refused as well: nothing speaks of it, and the error stands where the way is (RFC 9449 §7.1).
                    offers.clear();
                    invalid_token = vec![with_proof.clone().with("error", "invalid_token")?];
                } else {
                    invalid_token.push(with_proof.clone());
                }
                offers.push(with_proof.clone());
                Some(dpop.build(&with_proof)?)
            }
        };
        let malformed = offers.iter().map(|offer| offer.clone().with("error", "invalid_request"));
        let told = Told {
            invalid_request: malformed.collect::<Result<Vec<_>, _>>()?.into_iter().collect(),
            invalid_token: invalid_token.into_iter().collect(),
        };
        Ok(Entrance {
            places,
            offers,
            told,
            demands,
            #[cfg(feature = "dpop")]
            prover,
        })
    }
}

/// The way in.
pub(super) struct Entrance {
    pub(super) places: Places,
    /// What is offered, for each scheme.
    pub(super) offers: Vec<Challenge>,
    told: Told,
    demands: Demands,
    #[cfg(feature = "dpop")]
    prover: Option<Prover>,
}

impl Entrance {
    pub(super) fn credential_headers(&self) -> Vec<HeaderName> {
        let mut fields = self.places.fields();
        if self.places.dpop {
            fields.push(HeaderName::from_static("dpop"));
        }
        fields
    }

    #[inline]
    pub(super) fn authenticate_now(&self, tokens: &impl Verify, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        // A token that is remembered needs no reading: byte for byte it is one that was read and verified.
        let guess = self.places.guess(head);
        if let Some(verified) = guess.and_then(|token| tokens.recall(token, at)) {
            return Now::Known(match verified.and_then(|principal| self.admit(principal, head)) {
                Ok(identity) => Outcome::Verified(identity),
                Err(rejection) => rejection.into(),
            });
        }
        match self.places.find(head, &self.told, |token| tokens.takes(token)) {
            // A proof is used up when it is checked, and who is asked now may be asked again: another authenticator beside
            // this one may have to wait.
            Ok(Some(presented)) if presented.with_proof => Now::Wait,
            Ok(Some(presented)) => {
                let token = presented.token;
                let recalled = guess.is_some_and(|sought| std::ptr::eq(sought, token.as_bytes()));
                tokens
                    .verify_now(token, at, head.attempt(), recalled)
                    .map(|verified| presented.conclude(verified.and_then(|principal| self.admit(principal, head))))
            }
            Ok(None) => Now::Known(Outcome::Absent),
            Err(outcome) => Now::Known(outcome),
        }
    }

    pub(super) async fn authenticate(&self, tokens: &impl Verify, head: &RequestHead<'_>, at: Instants) -> Outcome {
        match self.places.find(head, &self.told, |token| tokens.takes(token)) {
            Ok(Some(presented)) => {
                // Of the token alone.
                let verified = tokens.verify(presented.token, at, head.attempt()).await;
                #[cfg(feature = "dpop")]
                if presented.with_proof {
                    let admitted = self.admit_with_proof(verified, presented.token, head, at).await;
                    return presented.conclude(admitted);
                }
                presented.conclude(verified.and_then(|principal| self.admit(principal, head)))
            }
            Ok(None) => Outcome::Absent,
            Err(outcome) => outcome,
        }
    }

    pub(super) fn invalid_token(&self, reason: &'static str) -> Rejection {
        Rejection::new(RejectionKind::InvalidCredential, reason).with_challenges(self.told.invalid_token.clone())
    }

    /// For who has no request to look at.
    pub(super) fn bound_to_nothing(&self, principal: Principal) -> Result<Principal, Rejection> {
        match principal.confirmation() {
            None if self.demands.key || self.demands.certificate => {
                Err(self.invalid_token("the token is bound to nothing, and must be"))
            }
            None => Ok(principal),
            Some(_) => Err(self.invalid_token("the token is bound (cnf), and there is no request to prove it")),
        }
    }

    /// For a token that came without a proof.
    fn admit(&self, principal: Principal, head: &RequestHead<'_>) -> Result<Identity, Rejection> {
        if principal.confirmation().is_some_and(|confirmation| confirmation.key_thumbprint().is_some()) {
            return Err(self.invalid_token("the token is bound to a key (cnf.jkt), and came without a proof"));
        }
        match self.demands.check(&principal, head) {
            Ok(()) => Ok(principal.into()),
            Err(Refusal(reason)) => Err(self.invalid_token(reason)),
        }
    }

    /// For a token that came with the scheme `DPoP`.
    #[cfg(feature = "dpop")]
    async fn admit_with_proof(
        &self,
        verified: Result<Principal, Rejection>,
        token: &str,
        head: &RequestHead<'_>,
        at: Instants,
    ) -> Result<Identity, Rejection> {
        let Some(prover) = &self.prover else { return verified.map(Identity::from) };
        let principal = verified.map_err(|rejection| prover.refuse_token(rejection))?;
        if let Err(Refusal(reason)) = self.demands.check(&principal, head) {
            return Err(prover.refuse_token(self.invalid_token(reason)));
        }
        let next_nonce = prover.check(&principal, token, head, at).await?;
        let identity = Identity::from(principal);
        Ok(match next_nonce {
            Some((name, value)) => identity.answering(name, value),
            None => identity,
        })
    }
}
