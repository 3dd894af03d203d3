//! Seeds that failed once.

use crate::story::{Plan, run};

#[test]
fn the_first_seed_of_each_plan_holds() {
    let plans = [Plan::rough, Plan::hostile, Plan::tight, Plan::draining, Plan::secure];
    for plan in plans {
        run(0, &plan(0));
    }
}
