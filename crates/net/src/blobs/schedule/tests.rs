//! The schedule against providers that are made up: fast, slow, silent, false.

use super::*;
use proptest::prelude::*;
use proto::ids::Hash;
use proto::manifest::PART_BYTES;

const STEP: Duration = Duration::from_millis(100);
/// No job here may take longer.
const STEPS_MAX: usize = 20_000;

/// How a made-up provider behaves.
#[derive(Debug, Clone, Copy)]
enum Nature {
    /// It sends so many bytes a step.
    Sends(u64),
    /// As `Sends`, and silent after so many bytes.
    FallsSilent(u64, u64),
    /// Its first part does not verify.
    Poisons,
    /// It refuses what it said it has.
    Refuses,
    /// It cannot be reached.
    Gone,
    /// Its connection breaks every so many bytes, after as many were sent.
    Breaks(u64, u64),
}

struct Made {
    nature: Nature,
    connected: bool,
    calls: Vec<Duration>,
    runs: Vec<(PartAt, u64)>,
    sent: u64,
    broke_at: u64,
    asked: usize,
}

struct Sim {
    schedule: Schedule,
    now: Duration,
    made: Vec<Made>,
    kept: Vec<PartAt>,
    called_off: usize,
}

fn block(layer: u32, parts: u64) -> Block {
    Block {
        kind: BlockKind::Layer(layer),
        hash: Hash([layer as u8; 32]),
        bytes: parts * PART_BYTES - 7,
    }
}

fn job(blocks: &[u64]) -> Vec<(Block, Vec<u32>)> {
    let job = blocks
        .iter()
        .enumerate()
        .map(|(layer, parts)| block(layer as u32, *parts));
    job.map(|block| (block, (0..block.parts()).collect()))
        .collect()
}

impl Sim {
    fn new(job: &[(Block, Vec<u32>)], natures: &[(Nature, &[bool])]) -> Self {
        let provider = |(n, (_, holds)): (usize, &(Nature, &[bool]))| {
            (NodeId([n as u8 + 1; 32]), holds.to_vec())
        };
        let providers: Vec<_> = natures.iter().enumerate().map(provider).collect();
        let (schedule, effects) = Schedule::new(job, &providers);
        let made = |(nature, _): &(Nature, &[bool])| Made {
            nature: *nature,
            connected: false,
            calls: Vec::new(),
            runs: Vec::new(),
            sent: 0,
            broke_at: 0,
            asked: 0,
        };
        let mut sim = Self {
            schedule,
            now: Duration::ZERO,
            made: natures.iter().map(made).collect(),
            kept: Vec::new(),
            called_off: 0,
        };
        sim.perform(effects);
        sim
    }

    fn tell(&mut self, event: Event) {
        let effects = self.schedule.handle(event, self.now);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Call { provider, pause } => {
                    self.made[provider].calls.push(self.now + pause);
                }
                Effect::Get { provider, at } => {
                    let made = &mut self.made[provider];
                    assert!(made.connected, "asked who is not connected");
                    assert!(self.schedule.runners[provider].holds[at.block]);
                    made.asked += 1;
                    made.runs.push((at, 0));
                    assert!(made.runs.len() <= PARTS_PER_PROVIDER);
                }
                Effect::CallOff { provider, at } => {
                    self.made[provider].runs.retain(|(run, _)| *run != at);
                    self.called_off += 1;
                }
                Effect::Leave { provider } => {
                    self.made[provider].runs.clear();
                    self.made[provider].connected = false;
                }
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        for provider in 0..self.made.len() {
            let made = &mut self.made[provider];
            let due = made.calls.len();
            made.calls.retain(|at| *at > self.now);
            if made.calls.len() < due {
                if matches!(made.nature, Nature::Gone) {
                    let detail = "nobody there".to_owned();
                    self.tell(Event::Lost { provider, detail });
                } else {
                    made.connected = true;
                    self.tell(Event::Ready { provider });
                }
            }
            self.send(provider);
        }
        self.tell(Event::Tick);
    }

    fn send(&mut self, provider: usize) {
        let made = &mut self.made[provider];
        if made.runs.is_empty() {
            return;
        }
        let (mut budget, detail) = match made.nature {
            Nature::Sends(bytes) => (bytes, String::new()),
            Nature::FallsSilent(bytes, until) => (bytes.min(until - made.sent), String::new()),
            Nature::Breaks(bytes, _) => (bytes, "broke".to_owned()),
            Nature::Poisons => {
                let detail = "wrong".to_owned();
                return self.tell(Event::Poisoned { provider, detail });
            }
            Nature::Refuses => {
                let detail = "no".to_owned();
                return self.tell(Event::Refused { provider, detail });
            }
            Nature::Gone => unreachable!("never connected"),
        };
        while budget > 0 {
            let made = &mut self.made[provider];
            let Some((at, got)) = made.runs.first_mut() else {
                return;
            };
            let (at, bytes) = (*at, self.schedule.works[at.block].block.part_bytes(at.part));
            let sent = budget.min(bytes - *got);
            *got += sent;
            let got = *got;
            budget -= sent;
            made.sent += sent;
            self.tell(Event::Heard {
                provider,
                at,
                bytes: got,
            });
            if got == bytes {
                self.made[provider].runs.retain(|(run, _)| *run != at);
                self.kept.push(at);
                self.tell(Event::Kept { provider, at });
            }
            let made = &mut self.made[provider];
            if let Nature::Breaks(_, every) = made.nature
                && made.sent - made.broke_at >= every
            {
                made.broke_at = made.sent;
                return self.tell(Event::Lost { provider, detail });
            }
        }
    }

    fn run(&mut self) -> Outcome {
        for _ in 0..STEPS_MAX {
            if self.schedule.outcome() != Outcome::Running {
                break;
            }
            self.step();
        }
        self.schedule.outcome()
    }

    fn state(&self, provider: usize) -> ProviderState {
        self.schedule.report().providers[provider].state.clone()
    }

    fn bytes(&self, provider: usize) -> u64 {
        self.schedule.report().providers[provider].bytes
    }
}

const MB: u64 = PART_BYTES;

#[test]
fn several_deliver_at_once_each_part_once_and_the_faster_more() {
    let job = job(&[10, 10, 10, 10]);
    let all: &[bool] = &[true; 4];
    let mut sim = Sim::new(
        &job,
        &[(Nature::Sends(MB / 4), all), (Nature::Sends(MB), all)],
    );
    assert_eq!(sim.run(), Outcome::Finished);
    let report = sim.schedule.report();
    assert_eq!((report.done, report.total), (40 * MB - 28, 40 * MB - 28));
    assert_eq!(sim.bytes(0) + sim.bytes(1), report.total);
    assert!(sim.bytes(0) > 4 * MB, "{report:?}");
    assert!(sim.bytes(1) > 2 * sim.bytes(0), "{report:?}");
    sim.kept.sort();
    sim.kept.dedup();
    assert_eq!(sim.kept.len(), 40);
    assert!(sim.made[0].asked + sim.made[1].asked <= 40 + 2 * PARTS_PER_PROVIDER);
}

#[test]
fn what_few_have_is_fetched_first_and_what_nobody_has_is_named() {
    let job = job(&[3, 3, 3]);
    let natures: &[(Nature, &[bool])] = &[
        (Nature::Sends(MB), &[true, true, false]),
        (Nature::Sends(MB), &[true, false, false]),
    ];
    let mut sim = Sim::new(&job, natures);
    assert_eq!(sim.run(), Outcome::Stuck);
    assert_eq!(sim.schedule.lacks(), [BlockKind::Layer(2)]);
    let of = |n: usize| sim.kept.iter().filter(|at| at.block == n).count();
    assert_eq!((of(0), of(1)), (3, 3), "what could be had was fetched");
    let first = sim.made[0].asked;
    assert!(
        first >= 3 && sim.bytes(1) + 7 >= 2 * MB,
        "the one with both began with the rare block: {first} asked, {} bytes of the other",
        sim.bytes(1)
    );
}

#[test]
fn who_falls_silent_is_left_and_its_parts_come_from_another() {
    let job = job(&[8]);
    let all: &[bool] = &[true];
    let silent = Nature::FallsSilent(MB, 2 * MB + 5);
    let mut sim = Sim::new(&job, &[(silent, all), (Nature::Sends(MB / 10), all)]);
    assert_eq!(sim.run(), Outcome::Finished);
    assert_eq!(sim.bytes(0), 2 * MB);
    assert_eq!(sim.bytes(1), 6 * MB - 7);
    let mut alone = Sim::new(&job, &[(silent, all)]);
    assert_eq!(alone.run(), Outcome::Stuck);
    let state = alone.state(0);
    assert!(
        matches!(&state, ProviderState::Lost { detail } if detail.contains("nothing came")),
        "{state:?}"
    );
    assert!(alone.now >= Duration::from_millis(STALL_MS) * PROVIDER_STRIKES_MAX);
}

#[test]
fn who_sends_wrong_bytes_or_refuses_is_never_asked_again() {
    for (nature, poisoned) in [(Nature::Poisons, true), (Nature::Refuses, false)] {
        let job = job(&[4, 4]);
        let all: &[bool] = &[true; 2];
        let mut sim = Sim::new(&job, &[(nature, all), (Nature::Sends(MB / 3), all)]);
        assert_eq!(sim.run(), Outcome::Finished);
        assert_eq!(sim.bytes(0), 0);
        assert_eq!(sim.made[0].asked, PARTS_PER_PROVIDER, "it was asked again");
        let state = sim.state(0);
        assert_eq!(
            matches!(state, ProviderState::Poisoned { .. }),
            poisoned,
            "{state:?}"
        );
        assert_eq!(
            matches!(state, ProviderState::Refused { .. }),
            !poisoned,
            "{state:?}"
        );
        assert_eq!(
            sim.schedule.handle(Event::Ready { provider: 0 }, sim.now),
            []
        );
    }
}

#[test]
fn a_broken_connection_is_made_again_and_a_dead_node_is_given_up() {
    let job = job(&[12]);
    let all: &[bool] = &[true];
    let mut sim = Sim::new(&job, &[(Nature::Breaks(MB / 2, 5 * MB), all)]);
    assert_eq!(
        sim.run(),
        Outcome::Finished,
        "strikes are forgiven when something comes"
    );
    let mut sim = Sim::new(&job, &[(Nature::Gone, all), (Nature::Sends(MB / 5), all)]);
    assert_eq!(sim.run(), Outcome::Finished);
    assert!(matches!(sim.state(0), ProviderState::Lost { .. }));
    let mut sim = Sim::new(&job, &[(Nature::Gone, all)]);
    assert_eq!(sim.run(), Outcome::Stuck);
}

#[test]
fn the_last_part_of_a_slow_one_is_taken_over_by_a_fast_one() {
    let job = job(&[20]);
    let all: &[bool] = &[true];
    let mut sim = Sim::new(
        &job,
        &[(Nature::Sends(MB / 200), all), (Nature::Sends(MB), all)],
    );
    assert_eq!(sim.run(), Outcome::Finished);
    assert!(sim.called_off > 0, "nobody was called off");
    let slow_alone = STEP * 200;
    assert!(
        sim.now < slow_alone / 2,
        "the fast one waited for the slow one: {:?}",
        sim.now
    );
}

#[test]
fn a_block_that_the_disk_lost_is_fetched_anew() {
    let job = job(&[2]);
    let mut sim = Sim::new(&job, &[(Nature::Sends(MB), &[true])]);
    assert_eq!(sim.run(), Outcome::Finished);
    sim.tell(Event::Damaged { block: 0 });
    assert_eq!(sim.schedule.outcome(), Outcome::Running);
    assert_eq!(sim.run(), Outcome::Finished);
    assert_eq!(sim.kept.len(), 4);
    let report = sim.schedule.report();
    assert_eq!((report.done, report.total), (4 * MB - 14, 4 * MB - 14));
}

#[test]
fn only_what_lacks_is_asked_for_and_nothing_at_all_is_finished() {
    let block = block(0, 5);
    let all: &[bool] = &[true];
    let mut sim = Sim::new(&[(block, vec![1, 3, 99])], &[(Nature::Sends(MB), all)]);
    assert_eq!(sim.run(), Outcome::Finished);
    let mut parts: Vec<u32> = sim.kept.iter().map(|at| at.part).collect();
    parts.sort_unstable();
    assert_eq!(parts, [1, 3]);
    assert_eq!(Sim::new(&[], &[]).run(), Outcome::Finished);
    assert_eq!(Sim::new(&job(&[1]), &[]).run(), Outcome::Stuck);
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        (MB / 50..2 * MB).prop_map(Nature::Sends),
        (MB / 50..2 * MB, 1..5 * MB).prop_map(|(bytes, until)| Nature::FallsSilent(bytes, until)),
        Just(Nature::Poisons),
        Just(Nature::Refuses),
        Just(Nature::Gone),
        (MB / 50..2 * MB, MB..9 * MB).prop_map(|(bytes, every)| Nature::Breaks(bytes, every)),
    ]
}

proptest! {
    #[test]
    fn with_one_honest_provider_everything_comes_whatever_the_others_are(
        sizes in prop::collection::vec(1u64..6, 1..6),
        others in prop::collection::vec((nature(), prop::collection::vec(any::<bool>(), 6)), 0..5),
        honest in MB / 20..MB,
    ) {
        let job = job(&sizes);
        let all = vec![true; sizes.len()];
        let mut natures: Vec<(Nature, &[bool])> =
            others.iter().map(|(nature, holds)| (*nature, &holds[..sizes.len()])).collect();
        natures.push((Nature::Sends(honest), &all[..]));
        let mut sim = Sim::new(&job, &natures);
        prop_assert_eq!(sim.run(), Outcome::Finished);
        let report = sim.schedule.report();
        prop_assert_eq!(report.done, report.total);
        prop_assert_eq!(report.providers.iter().map(|p| p.bytes).sum::<u64>(), report.total);
        for (number, (nature, _)) in others.iter().enumerate() {
            if matches!(nature, Nature::Poisons | Nature::Refuses | Nature::Gone) {
                prop_assert_eq!(report.providers[number].bytes, 0);
            }
        }
    }
}
