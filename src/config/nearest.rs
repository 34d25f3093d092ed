//! What was probably meant by a word that is not known.

/// The known key that was probably meant: at most a third of it is wrong.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let reject_unknown_keys = known.iter().map(|key| (strsim::levenshtein(name, key), *key));
    reject_unknown_keys.filter(|(edits, key)| *edits <= key.len().max(3) / 3).min().map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_was_meant_is_the_nearest_and_a_far_one_is_none() {
        let known = ["listen", "url", "workers", "max_head", "max_headers"];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("max_header", &known), Some("max_headers"));
        assert_eq!(nearest("worker", &known), Some("workers"));
        assert_eq!(nearest("frobnicate", &known), None);
    }
}
