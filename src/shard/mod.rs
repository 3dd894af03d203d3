//! Floor 4: what one core owns.
//!
//! A shard is its connections, their queues, the rooms they are in, the rooms it is home of, and the
//! mail it exchanges with its peers. Events, time and mail go in by `handle_*`; operations for the
//! driver and mail for the peers come out by `poll_*`. It holds no lock and shares nothing but the
//! immutable bytes of publications.

mod across;
mod admission;
mod awaited;
mod bundle;
mod carriers;
mod check;
mod comeback;
mod command;
mod consult;
mod deflate;
mod delay;
mod door;
mod drain;
mod everyone;
mod explain;
mod fanout;
mod farewells;
mod forms;
mod held;
mod history;
mod hoards;
mod holdings;
mod inbound;
mod inbox;
mod inspect;
mod joint;
mod ledger;
mod login;
mod mail;
mod measures;
mod memory;
mod naming;
mod orders;
mod outcomes;
mod over_http;
mod pace;
mod packing;
mod pages;
mod parties;
mod passages;
mod people;
mod petitions;
mod polling;
mod presence;
mod probes;
mod proofs;
mod quota;
mod recall;
mod relief;
mod replay;
mod restore;
mod rights;
mod seats;
mod secure;
mod settings;
mod shares;
mod shelf;
mod socketio;
mod state;
mod stream;
mod survey;
mod sweeps;
mod table;
mod targets;
mod tenants;
mod tidings;
mod trail;
mod transfers;
mod turn;
mod upgrades;
mod writes;

pub use awaited::Awaits;
pub use comeback::{Recall, Recalled};
pub use drain::Progress;
pub use explain::{Explain, Recipient};
pub use farewells::{Farewell, Told};
pub use holdings::Holding;
pub use inbox::{Errand, Errands, Kept, News, Notice, Said, Task};
pub use inspect::{ConnectionSeen, Elsewhere, Inspect, Inspected, RoomSeen, Until, Whom};
pub use joint::{Fetched, Joint, Told as Decided};
pub use ledger::{FIGURES, Figure, Figures, Ledger};
pub use mail::{
    Answer, Asked, Claim, Crossing, Found, Joining, Mail, NO_HOME, Question, Refusal, Saved,
    Statement, Whole,
};
pub use measures::{LOSS_ROWS, Losses, Measures, NAMESPACES, POLICIES};
pub use memory::REFUSE;
pub use naming::{Named, Naming};
pub use orders::{Numbered, Report, Submission, SubmissionItem};
pub use outcomes::OUTCOME_BYTES;
pub use packing::{MOST_PACKED_AT_ONCE, Packer, Packing, PackingDone};
pub use polling::Polling;
pub use presence::{
    Abroad, Attendance, Guest, Inquire, LastSeen, Page, Record, Reply, Word, stand_in_a_word,
};
pub use quota::Begin;
pub use relief::Relieved;
pub use settings::{
    COSTS, Capacity, Clients, Compression, Cost, DoorLimits, Echo, KindRate, Limits,
    NamespaceRules, OverRate, PARTY_COSTS, PartyLimits, Preface, PresenceRules, RoomMemory,
    RoomRules, Settings, ShelfLimits,
};
pub use shares::Toll;
pub use shelf::{NO_HISTORY, NO_STORE, SHARED};
pub use state::{Identity, Shard};
pub use survey::{Laggard, Surveyed};
pub use targets::{Author, Parts, Places};
pub use tenants::Tenants;
pub use transfers::Transfer;

#[cfg(test)]
mod tests;
