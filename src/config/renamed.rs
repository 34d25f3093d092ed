//! Keys that have got a better name. The old one is accepted for as long as configurations hold it, with a
//! warning that names the new one; a table that holds both is refused, since one of them would be ignored.

/// New name, old name. A new name stands in one kind of table only, so it needs no section.
const RENAMED: [(&str, &str); 6] = [
    ("renew_before_expiry", "ahead"),
    ("idle_renewal", "keep_alive"),
    ("max_concurrent", "at_once"),
    ("max_idle_per_host", "pool"),
    ("initial_backoff", "base"),
    ("pairing_backoff", "pairing_base"),
];

/// What a key was called before.
pub(super) fn old_name(key: &str) -> Option<&'static str> {
    RENAMED.iter().find(|(new, _)| *new == key).map(|(_, old)| *old)
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::tests::{ConfigFolder, MINIMAL, with_caller};
    use super::*;

    /// Each old name in its table, with a value that is not the default.
    const OLD: [(&str, &str, &str); 6] = [
        ("renewal", "ahead", "\"4m\""),
        ("renewal", "keep_alive", "\"6d\""),
        ("gateway.account_limit", "at_once", "7"),
        ("upstream", "pool", "63"),
        ("retry", "base", "\"3s\""),
        ("retry", "pairing_base", "\"4s\""),
    ];

    #[test]
    fn an_old_name_is_taken_and_the_warning_names_the_new_one() {
        let folder = ConfigFolder::new();
        assert_eq!(OLD.map(|(_, old, _)| old), RENAMED.map(|(_, old)| old));
        for (table, old, value) in OLD {
            let new = RENAMED.iter().find(|(_, known)| *known == old).map(|(new, _)| *new).unwrap();
            let load = |key: &str| {
                let text = format!("{MINIMAL}\n[{table}]\n{key} = {value}\n");
                folder.load(&text).unwrap_or_else(|problems| panic!("{problems}"))
            };
            let (before, now) = (load(old), load(new));
            assert_eq!(format!("{:?}", before.config), format!("{:?}", now.config), "{old}");
            assert_eq!(now.warnings, vec![]);
            assert_eq!(before.warnings.len(), 1, "{:?}", before.warnings);
            let told = before.warnings[0].to_string();
            assert!(told.contains(&format!(" {table}.{old}: is now called {new}.")), "{told}");
            assert!(told.contains(&format!("Fix: write {new} instead of {old}.")), "{told}");
        }
    }

    #[test]
    fn an_old_name_is_taken_in_the_limit_of_a_caller_too() {
        let folder = ConfigFolder::new();
        let loaded = folder.load(&with_caller("limit = { at_once = 3 }")).unwrap();
        assert_eq!(loaded.config.callers[0].limit.unwrap().max_concurrent, Some(3));
        assert_eq!(loaded.warnings[0].key, "callers[0].limit.at_once");
    }

    #[test]
    fn the_old_name_beside_the_new_one_is_refused_and_so_is_one_that_is_mistyped() {
        let folder = ConfigFolder::new();
        let both = "[renewal]\nahead = \"4m\"\nrenew_before_expiry = \"4m\"";
        let problems = folder.problems(&format!("{MINIMAL}\n{both}\n"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!((&*problems[0].key, &*problems[0].fix), ("renewal.ahead", "remove ahead"));
        let problems = folder.problems(&format!("{MINIMAL}\n[upstream]\npol = 3\n"));
        assert_eq!((&*problems[0].key, &*problems[0].what), ("upstream.pol", "is not a known key"));
    }
}
