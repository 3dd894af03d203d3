//! The set of revocations against a list that is searched from end to end.

use proptest::prelude::*;

use crate::auth::{Full, Grants, Identity, Revocation, Revocations};
use crate::base::map::Seed;

const CAPACITY: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    Add(Revocation),
    Ask { user: u8, tenant: Option<u8>, token: Option<u8>, issued: Option<u64> },
    Purge,
    Wait(u64),
}

fn name(number: u8) -> Box<str> {
    format!("n{number}").into()
}

fn step() -> impl Strategy<Value = Step> {
    let time = 0..60_u64;
    let user = (prop::option::of(0..2_u8), 0..3_u8, time.clone(), time.clone());
    let user = user.prop_map(|(tenant, user, issued, until)| {
        let (tenant, user) = (tenant.map(name), name(user));
        Step::Add(Revocation::User { tenant, user, issued, until })
    });
    let token = (0..6_u8, time.clone())
        .prop_map(|(id, until)| Step::Add(Revocation::Token { id: name(id), until }));
    let ask =
        (0..3_u8, prop::option::of(0..2_u8), prop::option::of(0..6_u8), prop::option::of(time))
            .prop_map(|(user, tenant, token, issued)| Step::Ask { user, tenant, token, issued });
    prop_oneof![3 => user, 3 => token, 6 => ask, 1 => Just(Step::Purge),
        2 => (0..8_u64).prop_map(Step::Wait)]
}

fn identity(user: u8, tenant: Option<u8>, token: Option<u8>, issued: Option<u64>) -> Identity {
    Identity {
        user: name(user),
        tenant: tenant.map(name),
        token: token.map(name),
        issued,
        expires: None,
        grants: Grants::default(),
        limits: None,
        metadata: None,
        veto: None,
    }
}

proptest! {
    #[test]
    fn the_set_holds_exactly_what_a_list_of_all_that_was_added_holds(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut set = Revocations::new(&Seed::new(3), CAPACITY);
        // Everything that the set did not refuse, with the moment it was added.
        let mut list: Vec<(Revocation, u64)> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait(wait) => now += wait,
                Step::Purge => set.purge(now),
                Step::Add(revocation) => match set.add(&revocation, now) {
                    Ok(()) => list.push((revocation, now)),
                    Err(Full { capacity }) => {
                        prop_assert_eq!(capacity, CAPACITY);
                        prop_assert_eq!(set.len(), CAPACITY);
                    }
                },
                Step::Ask { user, tenant, token, issued } => {
                    let who = identity(user, tenant, token, issued);
                    prop_assert_eq!(set.holds(&who, now), naive(&list, &who, now));
                }
            }
            prop_assert!(set.len() <= CAPACITY);
        }
    }
}

/// A second revocation of one user widens the first while that lasts, which harms nobody: when the first
/// ends, so has the last token that it stops.
fn naive(list: &[(Revocation, u64)], who: &Identity, now: u64) -> bool {
    let mut last: Option<(u64, u64)> = None;
    for (revocation, added) in list.iter().filter(|(revocation, at)| revocation.until() > *at) {
        match revocation {
            Revocation::Token { id, until } => {
                if who.token.as_ref() == Some(id) && *until > now {
                    return true;
                }
            }
            Revocation::User { tenant, user, issued, until } => {
                if *tenant == who.tenant && *user == who.user {
                    let before = last.filter(|(_, until)| until > added).unwrap_or_default();
                    last = Some((before.0.max(*issued), before.1.max(*until)));
                }
            }
        }
    }
    last.is_some_and(|(issued, until)| until > now && who.issued.is_none_or(|at| at <= issued))
}
