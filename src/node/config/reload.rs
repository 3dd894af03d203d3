//! What a running node can take over from a new configuration.

use super::group::Reload;
use super::list;
use super::values::Config;

impl Config {
    /// The configuration a running node goes on with when it is given `new`: the values that can change
    /// while it runs, and its own for the rest. Also names the keys that differ and need a restart.
    #[must_use]
    pub fn reload(&self, new: &Self) -> (Self, Vec<String>) {
        let mut next = self.clone();
        let mut ignored = Vec::new();
        for (group, new) in next.groups_mut().into_iter().zip(new.groups()) {
            for key in group.keys() {
                let Some(value) = new.get(key.name) else { continue };
                if group.get(key.name).as_ref() == Some(&value) {
                    continue;
                }
                match key.reload {
                    Reload::Live => {
                        let taken = group.set(key.name, &value);
                        assert_eq!(taken, Some(true), "{} was accepted before", key.path());
                    }
                    Reload::Restart => ignored.push(key.path()),
                }
            }
        }
        for (list, new) in next.lists_mut().into_iter().zip(new.lists()) {
            if list::is_live(list) {
                list::take_over(list, new);
            } else if !list::same(list, new) {
                ignored.push(format!("[[{}]]", list.about().name));
            }
        }
        (next, ignored)
    }
}
