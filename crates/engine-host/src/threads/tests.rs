use super::*;

const STEP: Duration = Duration::from_millis(10);

/// A machine where others run, and a tuner that computes on it step after step.
struct World {
    cores: u32,
    /// Threads of others that want to run all the time.
    others: u32,
    now: Duration,
    tuner: Tuner,
}

impl World {
    fn new(cores: u32, others: u32) -> Self {
        let (now, tuner) = (Duration::ZERO, Tuner::new(cores));
        Self {
            cores,
            others,
            now,
            tuner,
        }
    }

    /// Computes for so long; the steps with each number of threads.
    fn compute(&mut self, time: Duration) -> Vec<u32> {
        let mut steps = vec![0; self.cores as usize + 1];
        let end = self.now + time;
        while self.now < end {
            let threads = self.tuner.current;
            steps[threads as usize] += 1;
            let wanted = threads + self.others;
            let fits = wanted <= self.cores;
            let share = if fits {
                1.0
            } else {
                f64::from(self.cores) / f64::from(wanted)
            };
            // A tenth of every step is for one thread alone.
            let busy = 0.1 + 0.9 * f64::from(threads);
            let used = Usage {
                cpu: STEP.mul_f64(busy * share),
                preempted: if fits { 0 } else { 2 },
            };
            self.now += STEP;
            self.tuner.learn(STEP, used, self.now);
        }
        steps
    }
}

#[track_caller]
fn check(cores: u32, others: u32, settles_at: u32) {
    let mut world = World::new(cores, others);
    world.compute(Duration::from_secs(60));
    let steps = world.compute(Duration::from_secs(60));
    let settled = steps[settles_at as usize];
    assert!(settled > 5_500, "{cores} cores, {others} others: {steps:?}");
}

#[test]
fn free_cores_are_used_and_those_of_others_left_alone() {
    for (cores, others, settles_at) in [
        (2, 0, 2),
        (2, 1, 1),
        (2, 2, 1),
        (4, 0, 4),
        (4, 1, 3),
        (4, 3, 1),
        (8, 0, 8),
    ] {
        check(cores, others, settles_at);
    }
}

#[test]
fn a_core_that_becomes_free_is_found() {
    let mut world = World::new(2, 1);
    world.compute(Duration::from_secs(5));
    assert_eq!(world.tuner.current, 1);
    world.others = 0;
    let steps = world.compute(Duration::from_secs(20));
    assert!(steps[2] > 300, "within the longest interval: {steps:?}");
}

#[test]
fn trials_become_rare() {
    let mut world = World::new(2, 1);
    let early = world.compute(Duration::from_secs(10))[2];
    world.compute(Duration::from_secs(60));
    let late = world.compute(Duration::from_secs(60))[2];
    assert!(early > 0 && late > 0 && late < 60, "{early}, {late}");
}

#[test]
fn time_that_nobody_took_is_no_sign_of_others() {
    let mut tuner = Tuner::new(2);
    let half = Usage {
        cpu: STEP,
        preempted: 0,
    };
    for step in 1..100 {
        tuner.learn(STEP, half, STEP * step);
    }
    assert_eq!(tuner.current, 2, "a step with much for one thread alone");
}

#[test]
fn after_a_pause_what_runs_now_decides() {
    let mut world = World::new(4, 3);
    world.compute(Duration::from_secs(1));
    assert_eq!(world.tuner.current, 1);
    world.tuner.begin(4, world.now);
    assert_eq!(world.tuner.current, 4);
    world.tuner.begin(0, world.now);
    assert_eq!(world.tuner.current, 1);
    world.tuner.begin(9, world.now);
    assert_eq!(world.tuner.current, 4);
}

#[test]
fn answers_beside_others_do_not_each_begin_with_trials() {
    let mut world = World::new(2, 1);
    world.compute(Duration::from_secs(20));
    world.tuner.begin(1, world.now);
    let later = world.compute(Duration::from_secs(3))[2];
    let first = World::new(2, 1).compute(Duration::from_secs(3))[2];
    assert!(later < first, "{later} steps of trials, {first} at first");
    world.tuner.begin(2, world.now);
    assert_eq!(world.tuner.trial_after, TRIAL_AFTER_MIN, "nobody runs");
}

#[test]
fn what_the_process_uses_is_measured() {
    let before = Usage::now();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(30) {
        std::hint::spin_loop();
    }
    let used = Usage::now().since(before);
    assert!(used.cpu > Duration::ZERO, "{used:?}");
}
