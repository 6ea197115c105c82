//! Random orders of threads, by shuttle.

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

pub(super) use shuttle::thread;

/// Runs `scene` in `orders` random orders.
///
/// Then it runs it in half as many orders with few, well-placed preemptions.
pub(super) fn explore(orders: usize, scene: fn()) {
    let seed = match std::env::var("THROUGHLINE_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), orders),
    };
    // Shown when the test fails.
    eprintln!("THROUGHLINE_TEST_SEED={seed}");
    let ran = Runner::new(RandomScheduler::new_from_seed(seed, orders), Config::new()).run(scene)
        + Runner::new(PctScheduler::new_from_seed(seed, 3, orders / 2), Config::new()).run(scene);
    assert_eq!(ran, orders + orders / 2);
}

pub(super) fn below(n: usize) -> usize {
    thread_rng().gen_range(0..n)
}
