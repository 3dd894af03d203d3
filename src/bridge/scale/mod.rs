//! What many nodes do to Redis: on paper, and counted by nodes that decide as real ones do before a Redis that
//! counts. The one is held against the other here, and docs/scaling.md says what follows. `make scale` prints both.
//!
//! What a link carries is not played: time, answers, and what is lost on the way are the business of tests with a
//! real Redis. What Redis costs in processor time is measured, by `benches/bridge`.

mod nodes;
mod paper;
mod redis;
mod table;

use nodes::World;
use paper::{Rooms, canaries};
use redis::Count;

/// Nodes that are played.
const NODES: usize = 50;

/// Rooms whose sizes are as usual: many of a few, or some of very many, or one of everybody.
struct Distribution {
    name: &'static str,
    /// Rooms, and members of each.
    sizes: Vec<usize>,
    is_shared: bool,
}

fn distributions() -> Vec<Distribution> {
    let zipf: Vec<usize> = (1..=300).map(|rank| 3000 / rank).collect();
    let kinds = [
        ("2,000 rooms of 5", vec![5; 2000]),
        ("300 rooms by Zipf's law, the largest of 3,000", zipf),
        ("one room of 10,000", vec![10_000]),
    ];
    let both = kinds.into_iter().flat_map(|(name, sizes)| {
        [false, true].map(|is_shared| Distribution { name, sizes: sizes.clone(), is_shared })
    });
    both.collect()
}

fn real(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("a number"))
}

/// Publishes twice in every room; what that cost, and what the paper says it does: by where members really are,
/// and by where they would be on average.
fn play(of: &Distribution, payload: usize, seed: u64) -> [Count; 3] {
    let mut world = World::new(NODES, seed);
    world.open();
    let name = |at: usize| format!("r{:06}", at);
    for (at, members) in of.sizes.iter().enumerate() {
        world.fill(&name(at), *members, of.is_shared);
    }
    world.tell_interest();
    let before = world.redis.count;
    let (mut exact, mut average) = (Count::default(), Count::default());
    for (at, members) in of.sizes.iter().enumerate() {
        let rooms = Rooms {
            count: 1.0,
            members: real(*members),
            rate: 2.0,
            payload: real(payload),
            name: 7.0,
            is_shared: of.is_shared,
        };
        exact = exact + rooms.cost_at(real(world.interested(&name(at))));
        average = average + rooms.cost(real(NODES));
        for _ in 0..2 {
            if of.is_shared {
                world.append(&name(at), payload);
            } else {
                world.publish(&name(at), payload);
            }
        }
    }
    [world.redis.count + before * -1.0, exact, average]
}

fn assert_near(what: &str, counted: &Count, paper: &Count, within: f64) {
    let pairs = [
        (counted.commands, paper.commands),
        (counted.bytes_in, paper.bytes_in),
        (counted.messages, paper.messages),
        (counted.bytes_out, paper.bytes_out),
    ];
    for (one, other) in pairs {
        assert!((one - other).abs() <= within * one, "{what}: {counted:?} and on paper {paper:?}");
    }
}

#[test]
fn what_fifty_nodes_do_to_redis_is_what_stands_on_paper() {
    println!("{NODES} nodes, two publications in every room, payloads of 100 and 2,000 bytes");
    for of in distributions() {
        for payload in [100, 2000] {
            let [counted, exact, average] = play(&of, payload, 1);
            let what = format!("{}, shared: {}, {payload}", of.name, of.is_shared);
            println!("{what}\n  counted {counted:?}\n  paper   {average:?}");
            assert_eq!(
                (counted.commands, counted.messages),
                (exact.commands, exact.messages),
                "{what}"
            );
            assert_near(&what, &counted, &exact, 0.03);
            assert_near(&what, &counted, &average, 0.05);
        }
    }
}

#[test]
fn canaries_cost_what_stands_on_paper_and_reach_nobody_else() {
    let mut world = World::new(NODES, 1);
    world.open();
    let before = world.redis.count;
    (0..20).for_each(|_| world.canaries());
    assert_near(
        "canaries",
        &(world.redis.count + before * -1.0),
        &canaries(real(NODES), 20.0),
        0.03,
    );
}

#[test]
fn a_link_that_is_made_again_asks_for_its_rooms_once_and_tells_of_gaps_where_nothing_is_numbered() {
    let mut world = World::new(NODES, 1);
    world.open();
    for at in 0..1000 {
        world.fill(&format!("p{at}"), 5, false);
        world.fill(&format!("s{at}"), 5, true);
    }
    world.tell_interest();
    let here = (0..1000).filter(|at| world.has_members(7, &format!("p{at}"))).count();
    let (cost, told) = world.break_link(7);
    assert_eq!(told, here, "of every room without a shared history");
    assert!(cost.commands <= 2.0, "many rooms in one command: {cost:?}");
    for at in 0..1000 {
        world.publish(&format!("p{at}"), 10);
        world.append(&format!("s{at}"), 10);
    }
    let before = world.redis.count;
    (0..1000).for_each(|at| world.empty(&format!("p{at}")));
    let left = world.redis.count + before * -1.0;
    assert_eq!((left.messages, world.delivered() > 0), (0.0, true));
    assert!(left.commands >= 1000.0, "who leaves rooms one at a time pays for each: {left:?}");
}
