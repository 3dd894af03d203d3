//! Seeds that failed once.

use crate::story::{Plan, run};

#[test]
fn the_first_seed_of_each_plan_holds() {
    for plan in [Plan::rough(0), Plan::hostile(0), Plan::tight(0), Plan::draining(0)] {
        run(0, &plan);
    }
}
