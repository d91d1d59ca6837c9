//! A random differential test of the whole server: made-up clients ask a made-up application, each answer is compared with the
//! one that follows from the request itself (tests/differential/model.rs), and at the end clients, application and access log
//! must agree on each request.
//!
//! TAPSTER_DIFFERENTIAL_SECONDS says for how long, TAPSTER_DIFFERENTIAL_SEED where to begin; each round has the next seed. With a
//! seed and without seconds one round is run.

mod common;

#[path = "differential/answer.rs"]
mod answer;
#[path = "differential/ledger.rs"]
mod ledger;
#[path = "differential/model.rs"]
mod model;
#[path = "differential/pattern.rs"]
mod pattern;
#[path = "differential/plan.rs"]
mod plan;
#[path = "differential/random.rs"]
mod random;
#[path = "differential/round.rs"]
mod round;
#[path = "differential/run.rs"]
mod run;
#[path = "differential/session.rs"]
mod session;
#[path = "differential/socket.rs"]
mod socket;

use std::env;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use round::Round;

/// Time for the rounds, when nothing else is said.
const SECONDS: u64 = 10;

/// Time in which a round begins connections: the books are looked at when it is over.
const ROUND: Duration = Duration::from_secs(8);

/// The number in a variable of the environment.
fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn whatever_clients_and_applications_do_every_answer_is_whole_and_logged_once() {
    let (seed, seconds) = (variable("TAPSTER_DIFFERENTIAL_SEED"), variable("TAPSTER_DIFFERENTIAL_SECONDS"));
    let once = seed.is_some() && seconds.is_none();
    // Far apart, so that two runs share no round.
    let first = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
        now.as_millis() as u64 * 1_000
    });
    let began = Instant::now();
    let limit = Duration::from_secs(seconds.unwrap_or(SECONDS));
    eprintln!("TAPSTER_DIFFERENTIAL_SEED={first}");
    let (mut rounds, mut answered, mut left, mut refused) = (0, 0, 0, 0);
    while rounds == 0 || (!once && began.elapsed() < limit) {
        let tally =
            Round::random(first + rounds).run(if once { ROUND } else { ROUND.min(limit.saturating_sub(began.elapsed())) });
        rounds += 1;
        answered += tally.answered;
        left += tally.left;
        refused += tally.refused;
    }
    eprintln!(
        "{rounds} rounds from seed {first} in {:?}: {answered} requests answered, {refused} refused, {left} left by their clients",
        began.elapsed()
    );
}
