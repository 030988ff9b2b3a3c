//! The word that was probably meant. Pure, and shared with leveretctl, which links nothing else of the broker.

/// The most similar of the known names, when it is similar enough to have been meant.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|known| (distance(name, known), known));
    let (distance, known) = scored.min()?;
    (distance <= (name.len() / 3).max(1)).then_some(known)
}

/// Edits from one word to the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (at, left) in left.chars().enumerate() {
        let mut diagonal = at;
        let mut before = at + 1;
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (cell, right) in row.iter_mut().skip(1).zip(right.chars()) {
            let replaced = diagonal + usize::from(left != right);
            diagonal = *cell;
            before = replaced.min(before + 1).min(*cell + 1);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_was_meant() {
        let known = ["list_queues", "list_users", "status"];
        for (word, expected) in [
            ("list_quues", Some("list_queues")),
            ("lst_users", Some("list_users")),
            ("sttus", Some("status")),
            ("frobnicate", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), expected, "{word}");
        }
    }
}
