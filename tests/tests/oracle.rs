//! Docker Engine 20.10 as an oracle where it is right: the same requests to it and to us, each on a host of its own, and the same questions
//! asked of both networks afterwards, from outside and inside. Where the answers differ, the difference is in the table
//! [`known::KNOWN`] with its reason; one that is there and does not show any more is a failure too.
//!
//! Both of our firewalls are compared with the one `dockerd`.

#[path = "oracle/commands.rs"]
mod commands;
#[path = "oracle/differences.rs"]
mod differences;
#[path = "oracle/dns.rs"]
mod dns;
#[path = "oracle/known.rs"]
mod known;
#[path = "oracle/questions.rs"]
mod questions;
#[path = "oracle/scenario.rs"]
mod scenario;
#[path = "oracle/talk.rs"]
mod talk;
#[path = "oracle/words.rs"]
mod words;
#[path = "oracle/world.rs"]
mod world;

use std::sync::OnceLock;
use std::time::Instant;

use commands::Answers;
use harness::Host;
use libtest_mimic::{Arguments, Failed, Trial};
use questions::Question;
use talk::Patience;
use world::World;

/// Ours, in this order after Docker's.
const FIREWALLS: [&str; 2] = ["iptables", "nftables"];

/// What all engines said, Docker first, and what was left of Docker.
struct Outcome {
    answers: Vec<Answers>,
    left: Vec<String>,
}

/// Runs the same work for every engine at once.
fn everywhere<T: Send>(worlds: &[World], work: impl Fn(&World) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = worlds
            .iter()
            .map(|world| scope.spawn(move || work(world)))
            .collect();
        let results = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        results
            .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Some requests, then a look at what has become of them.
fn request(worlds: &[World], all: &mut [Answers], phase: &str, lines: &[&str]) {
    let start = Instant::now();
    let given = everywhere(worlds, |world| {
        let start = Instant::now();
        let given: Vec<_> = lines.iter().map(|line| world.request(line)).collect();
        world.look();
        println!("  {phase}: {} took {:.1?}", world.name, start.elapsed());
        let comparable = given.iter().map(|text| world.comparable(text));
        comparable.collect::<Vec<_>>()
    });
    for (answers, given) in all.iter_mut().zip(given) {
        let keys = lines.iter().enumerate();
        answers.extend(
            keys.zip(given)
                .map(|((number, line), text)| (format!("{phase} {number:03}: {line}"), text)),
        );
    }
    println!(
        "{phase}: {} requests in {:.1?}",
        lines.len(),
        start.elapsed()
    );
}

/// Puts the questions to all; those with unexpected answers once more with more patience, on a quieter machine.
fn question(worlds: &[World], all: &mut [Answers], phase: &str, questions: &[Question]) {
    let start = Instant::now();
    let every: Vec<_> = questions.iter().collect();
    let mut given = everywhere(worlds, |world| {
        questions::put_all(world, &every, Patience::Little)
    });
    let doubtful: Vec<usize> = (0..questions.len())
        .filter(|&number| {
            let key = format!("{phase}: {}", questions[number].key);
            let docker = &given[0][number];
            given[1..].iter().any(|ours| {
                ours[number] != *docker && !differences::is_known(&key, docker, &ours[number])
            })
        })
        .collect();
    println!("{phase}: asked once in {:.1?}", start.elapsed());
    // So many are no matter of a slow machine, and would take long.
    let rounds = if doubtful.len() > 100 { 0 } else { 2 };
    for _ in 0..rounds {
        let again: Vec<_> = doubtful
            .iter()
            .filter(|&&number| {
                given[1..]
                    .iter()
                    .any(|ours| ours[number] != given[0][number])
            })
            .copied()
            .collect();
        let some: Vec<_> = again.iter().map(|&number| &questions[number]).collect();
        let second = everywhere(worlds, |world| {
            questions::put_all(world, &some, Patience::Much)
        });
        for (given, second) in given.iter_mut().zip(second) {
            for (&number, answer) in again.iter().zip(second) {
                given[number] = answer;
            }
        }
    }
    for (answers, given) in all.iter_mut().zip(given) {
        let keys = questions.iter().map(|it| format!("{phase}: {}", it.key));
        answers.extend(keys.zip(given));
    }
    println!(
        "{phase}: {} questions, {} of them in doubt, in {:.1?}",
        questions.len(),
        doubtful.len(),
        start.elapsed()
    );
}

fn look(worlds: &[World], all: &mut [Answers], phase: &str) {
    let given = everywhere(worlds, |world| commands::look(world, phase));
    all.iter_mut()
        .zip(given)
        .for_each(|(answers, given)| answers.extend(given));
}

fn compare() -> Outcome {
    // Forwarding is on already, so that FORWARD's policy is left at ACCEPT: what is dropped is dropped by rules.
    let docker = Host::builder()
        .ip_forward(true)
        .docker()
        .options(["--experimental", "--ip6tables"]);
    let ours = FIREWALLS.map(|firewall| {
        let host = Host::builder().ip_forward(true);
        (firewall, host.options(["--firewall", firewall]))
    });
    let worlds: Vec<_> = std::iter::once(("docker", docker))
        .chain(ours)
        .map(|(name, builder)| World::new(name, builder.build()))
        .collect();
    let version = worlds[0].host.run("version --format {{.Server.Version}}");
    assert!(
        version.text().starts_with("20.10."),
        "the oracle is Docker Engine 20.10: {version}"
    );
    let mut all = vec![Answers::new(); worlds.len()];
    request(&worlds, &mut all, "setup", scenario::SETUP);
    let few = ["web", "sib", "backer", "six", "inside", "plain"];
    let mut questions = questions::published(&few);
    questions.extend(questions::direct(scenario::RUNNING));
    questions.extend(questions::outward(scenario::RUNNING));
    questions.extend(questions::names(&[
        "web", "sib", "backer", "multi", "six", "inside", "both",
    ]));
    questions.extend(questions::inner(scenario::RUNNING));
    question(&worlds, &mut all, "setup", &questions);
    look(&worlds, &mut all, "setup");
    request(&worlds, &mut all, "refused", scenario::REFUSED);
    request(&worlds, &mut all, "changes", scenario::CHANGES);
    let mut questions = questions::published(&["web", "fresh"]);
    questions.extend(questions::direct(scenario::RUNNING_AFTER));
    questions.extend(questions::names(&["web", "multi", "fresh"]));
    questions.extend(questions::inner(scenario::RUNNING_AFTER));
    question(&worlds, &mut all, "changes", &questions);
    look(&worlds, &mut all, "changes");
    request(&worlds, &mut all, "end", scenario::END);
    let left = worlds.into_iter().flat_map(World::end).collect();
    Outcome { answers: all, left }
}

fn outcome() -> &'static Outcome {
    static OUTCOME: OnceLock<Outcome> = OnceLock::new();
    OUTCOME.get_or_init(compare)
}

fn main() {
    let arguments = Arguments::from_args();
    let mut trials: Vec<_> = FIREWALLS
        .iter()
        .zip(1..)
        .map(|(firewall, number)| {
            Trial::test(
                format!("the_same_answers_as_docker_by_{firewall}"),
                move || {
                    let answers = &outcome().answers;
                    let unexpected =
                        differences::unexpected(firewall, &answers[0], &answers[number]);
                    fail_with(&unexpected)
                },
            )
        })
        .collect();
    trials.push(Trial::test("every_listed_difference_still_shows", || {
        let answers = &outcome().answers;
        fail_with(&differences::that_show_no_more(&answers[0], &answers[1..]))
    }));
    trials.push(Trial::test("nothing_is_left_of_docker", || {
        fail_with(&outcome().left)
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

fn fail_with(complaints: &[String]) -> Result<(), Failed> {
    match complaints.is_empty() {
        true => Ok(()),
        false => Err(Failed::from(format!(
            "{} of them:\n{}",
            complaints.len(),
            complaints.join("\n")
        ))),
    }
}
