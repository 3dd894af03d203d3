//! What a thread outside the shards counts, for everybody to read.
//!
//! Such a thread is no shard and has no row on the board: its counters are relaxed atomics with the names under
//! which they are told. Names that end in `_total` are totals, the others gauges.

/// Declares a `Tally` with these counters: each with what it means, its field, and its name.
macro_rules! tally {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// What the thread counts, for everybody to read. Names that end in `_total` are totals, the others
        /// gauges.
        #[derive(Debug, Default)]
        pub struct Tally {
            $($(#[doc = $doc])* pub $name: std::sync::atomic::AtomicU64,)*
        }

        impl Tally {
            /// The counters: each with its name, what it means and its value.
            pub fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
                let read = |cell: &std::sync::atomic::AtomicU64| {
                    cell.load(std::sync::atomic::Ordering::Relaxed)
                };
                [$(($text, concat!($($doc),*), read(&self.$name))),*].into_iter()
            }

            /// The counters by name.
            pub fn pairs(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                self.rows().map(|(name, _, value)| (name, value))
            }
        }
    };
}
pub(crate) use tally;
