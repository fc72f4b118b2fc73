//! Readings that are old, and clocks that jump.

use super::{Ask, DAY, SECOND, Suite, client, signed};
use crate::{
    clock::Instants,
    rate_limit::{LimitKey, Quota},
};

impl Suite<'_> {
    /// The monotonic clock tells an old reading from a wall clock that was set back.
    pub(super) async fn the_clock_may_jump(&self) {
        let (parts, quotas) = (client(1), [Quota::per_second(10)]);
        let ask = Ask::new(LimitKey::new("conformance-clock", &parts), &quotas);
        let hour = 3_600 * SECOND;
        let at = async |wall: i64, monotonic: i64| {
            let charges = ask.charges();
            let at = Instants::new(self.at(wall).unix_nanos(), self.at(monotonic).monotonic_nanos());
            self.draw_at(ask.draw(&charges), at).await
        };
        assert!(self.take(ask.costing(10), 0).await.is_granted());
        // A request that waited, in a layer outside or on its way here, is counted by a time that others are past.
        for back in [1_000, SECOND, 30 * SECOND, 70 * SECOND, hour] {
            let wait = at(-signed(back), -signed(back)).await.retry_after_nanos();
            let at_most = back.saturating_add(SECOND / 10);
            assert!(
                wait.is_some_and(|wait| (SECOND / 10..=at_most).contains(&wait)),
                "a reading that is {back} ns old grants nothing: {wait:?}"
            );
            assert_eq!(
                at(0, 0).await.retry_after_nanos(),
                Some(SECOND / 10),
                "a reading that is {back} ns old gives back nothing that was taken since"
            );
        }
        // The wall clock a little back, as between two machines: what was used stays used.
        for back in [1_000, SECOND, 30 * SECOND] {
            let wait = at(-signed(back), 0).await.retry_after_nanos();
            let at_most = back.saturating_add(SECOND / 10);
            assert!(
                wait.is_some_and(|wait| (SECOND / 10..=at_most).contains(&wait)),
                "a wall clock {back} ns back grants nothing: {wait:?}"
            );
        }
        // Far back: nothing is granted at once, and nobody is shut out for the hour.
        assert_eq!(
            at(-signed(hour), 0).await.retry_after_nanos(),
            Some(SECOND / 10),
            "a wall clock an hour back is a whole burst of debt"
        );
        let mut granted = 0;
        for tenth in 0..20 {
            let passed = tenth * signed(SECOND / 10);
            for _ in 0..3 {
                granted += u32::from(at(passed.saturating_sub(signed(hour)), passed).await.is_granted());
            }
        }
        assert_eq!(granted, 19, "after that it goes on at its rate");
        // Forward, far and farther.
        let (mut granted, far) = (0, 365 * DAY);
        for _ in 0..30 {
            granted += u32::from(self.take(ask, far).await.is_granted());
        }
        assert_eq!(granted, 10, "a clock that jumps ahead gives a burst, and no more than one");
    }
}
