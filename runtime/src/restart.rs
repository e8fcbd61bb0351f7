//! Whether a container that has ended is started again, and after which pause: Docker's rules. Pure.

use std::time::Duration;

use crate::record::{Container, State};
use crate::request::RestartPolicy;
use crate::store::{Stopped, Stored};

/// Before the first restart; doubled before each further one.
const SHORTEST: Duration = Duration::from_millis(100);

const LONGEST: Duration = Duration::from_secs(60);

/// Who has run so long begins anew with the shortest pause.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// The pause before the next start, after one of `last` and a run of `ran`.
pub fn pause(last: Option<Duration>, ran: Duration) -> Duration {
    match last {
        Some(last) if ran < LONG_ENOUGH => (last * 2).min(LONGEST),
        _ => SHORTEST,
    }
}

/// Whether a container that has just ended with `code` is started again.
pub fn is_wanted(stored: &Stored, code: i32) -> bool {
    stored.stopped == Stopped::No && wants(&stored.container, code)
}

/// Whether `system up` starts a container that does not run. What the user has stopped stays so, but for `always` after a boot; what never
/// ran is nobody's concern.
pub fn is_wanted_at_up(stored: &Stored, boot_id: &str) -> bool {
    let State::Exited { code, .. } = stored.container.state else {
        return false;
    };
    let in_this_boot = stored.boot_id.as_deref() == Some(boot_id);
    let is_left_alone = match stored.container.request.restart {
        RestartPolicy::Always => stored.stopped == Stopped::ByUser && in_this_boot,
        _ => stored.stopped == Stopped::ByUser,
    };
    !is_left_alone && wants(&stored.container, code)
}

fn wants(container: &Container, code: i32) -> bool {
    match container.request.restart {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure(None | Some(0)) => code != 0,
        RestartPolicy::OnFailure(Some(most)) => code != 0 && container.restarts < most,
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::record::Resolved;
    use crate::request::ContainerRequest;
    use crate::store::Restarting;

    #[test]
    fn the_pause_doubles_up_to_a_minute_and_begins_anew_after_ten_seconds() {
        let short = Duration::from_secs(1);
        let mut pauses = vec![pause(None, short)];
        for _ in 0..11 {
            pauses.push(pause(pauses.last().copied(), short));
        }
        let expected = [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000,
        ];
        assert_eq!(pauses, expected.map(Duration::from_millis));
        assert_eq!(pause(pauses.last().copied(), LONG_ENOUGH), SHORTEST);
    }

    fn ended(policy: RestartPolicy, code: i32, restarts: u32, stopped: Stopped) -> Stored {
        let container = Container {
            id: "c".repeat(64),
            name: "c1".into(),
            created: OffsetDateTime::UNIX_EPOCH,
            request: ContainerRequest {
                restart: policy,
                ..ContainerRequest::default()
            },
            resolved: Resolved::default(),
            image_id: String::new(),
            state: State::Exited {
                code,
                started: None,
                finished: OffsetDateTime::UNIX_EPOCH,
                oom_killed: false,
                error: String::new(),
            },
            paused: false,
            health: None,
            restarts,
            stopped_by_user: stopped == Stopped::ByUser,
            attachments: Vec::new(),
        };
        Stored {
            container,
            owner: None,
            init: None,
            restarting: Restarting::No,
            stopped,
            boot_id: Some("now".into()),
        }
    }

    #[track_caller]
    fn check(stored: &Stored, at_end: bool, at_up: bool, at_boot: bool) {
        let State::Exited { code, .. } = stored.container.state else {
            panic!("it has ended");
        };
        assert_eq!(is_wanted(stored, code), at_end, "at its end");
        assert_eq!(is_wanted_at_up(stored, "now"), at_up, "in the same boot");
        assert_eq!(is_wanted_at_up(stored, "later"), at_boot, "after a boot");
    }

    #[test]
    fn each_policy_has_its_own_idea_of_when_to_start_again() {
        use RestartPolicy::*;
        use Stopped::*;
        check(
            &ended(RestartPolicy::No, 1, 0, Stopped::No),
            false,
            false,
            false,
        );
        check(&ended(Always, 0, 9, Stopped::No), true, true, true);
        check(&ended(Always, 0, 0, ByUser), false, false, true);
        check(&ended(Always, 137, 0, ByDown), false, true, true);
        check(&ended(UnlessStopped, 0, 9, Stopped::No), true, true, true);
        check(&ended(UnlessStopped, 0, 0, ByUser), false, false, false);
        check(&ended(UnlessStopped, 143, 0, ByDown), false, true, true);
        check(
            &ended(OnFailure(None), 0, 0, Stopped::No),
            false,
            false,
            false,
        );
        check(
            &ended(OnFailure(None), 1, 99, Stopped::No),
            true,
            true,
            true,
        );
        check(
            &ended(OnFailure(Some(2)), 1, 1, Stopped::No),
            true,
            true,
            true,
        );
        check(
            &ended(OnFailure(Some(2)), 1, 2, Stopped::No),
            false,
            false,
            false,
        );
        check(
            &ended(OnFailure(Some(2)), 143, 0, ByUser),
            false,
            false,
            false,
        );
    }
}
