//! Turns rows into queries that are farther from the table than rows are: pure.
//!
//! A row lies where the index was built for; a question does not. Noise in all directions would only add the same to every distance. So a
//! row is moved by a part of the difference of two other rows: `x + strength (y - z)` has the directions in which the table's own values
//! differ, and leads between them, where questions are.

use std::collections::BTreeMap;

use super::kind::ValueType;

/// The distance of a query to its k-th neighbour, as a multiple of a row's. Of 20,391 chunks of text and 700 questions (all-MiniLM-L6-v2),
/// hnsw found 0.988 for rows and 0.919 for questions; a multiple that is too large costs time, one that is too small costs neighbours.
pub const FARTHER: f64 = 1.25;
/// The strength where the noise does not lead away, as of random vectors, whose questions are as near as their rows, or where it was not measured.
pub const DEFAULT_STRENGTH: f64 = 0.35;
const MAX_STRENGTH: f64 = 1.0;
/// More elements of a sparse vector than these are not indexed by hnsw.
const MAX_ELEMENTS: usize = 1_000;

/// Returns `x` moved by `strength` times the difference of `y` and `z`, as pgvector writes values of this type; None if one of them is no such value.
/// `number` decides which bits are flipped.
pub fn disturbed(value: ValueType, (x, y, z): (&str, &str, &str), strength: f64, number: usize) -> Option<String> {
    match value {
        ValueType::Vector | ValueType::Halfvec => {
            let [x, y, z] = [x, y, z].map(elements);
            let (x, y, z) = (x?, y?, z?);
            if x.len() != y.len() || x.len() != z.len() {
                return None;
            }
            // No value of halfvec is larger than 65504.
            let limit = if value == ValueType::Halfvec { 65_504.0 } else { f64::from(f32::MAX) };
            let moved = x.iter().zip(&y).zip(&z).map(|((x, y), z)| (x + strength * (y - z)).clamp(-limit, limit) as f32);
            Some(format!("[{}]", moved.map(|element| element.to_string()).collect::<Vec<_>>().join(",")))
        }
        ValueType::Bit => {
            let letters = x.chars().zip(y.chars()).zip(z.chars()).enumerate();
            let flipped = letters.map(|(place, ((x, y), z))| match y != z && chance(number, place) < strength {
                true if x == '0' => '1',
                true => '0',
                false => x,
            });
            (x.len() == y.len() && x.len() == z.len()).then(|| flipped.collect())
        }
        ValueType::Sparsevec => {
            let [x, y, z] = [x, y, z].map(sparse);
            let ((mut moved, dimensions), (y, _), (z, _)) = (x?, y?, z?);
            for (from, sign) in [(y, strength), (z, -strength)] {
                for (place, element) in from {
                    *moved.entry(place).or_insert(0.0) += sign * element;
                }
            }
            let mut moved: Vec<(u32, f64)> = moved.into_iter().filter(|(_, element)| *element as f32 != 0.0).collect();
            moved.sort_by(|one, other| other.1.abs().total_cmp(&one.1.abs()));
            moved.truncate(MAX_ELEMENTS);
            moved.sort_by_key(|(place, _)| *place);
            let elements: Vec<String> = moved.iter().map(|(place, element)| format!("{place}:{}", *element as f32)).collect();
            Some(format!("{{{}}}/{dimensions}", elements.join(",")))
        }
    }
}

/// Returns the strength to try next, from the distance to the k-th neighbour without noise and with it. Squared distances, and those by
/// cosine, grow with the square of the strength. `is_square_root`: distances are no squares.
pub fn next_strength(strength: f64, near: f64, measured: f64, is_square_root: bool) -> f64 {
    let scaled = |distance: f64| if is_square_root { distance.abs() * distance } else { distance };
    let (goal, near, measured) = (scaled(goal(near)), scaled(near), scaled(measured));
    if measured <= near || goal <= near {
        return DEFAULT_STRENGTH;
    }
    (strength * ((goal - near) / (measured - near)).sqrt()).clamp(0.01, MAX_STRENGTH)
}

/// Returns the distance that queries shall have to their k-th neighbour, where rows have `near`. An inner product is negative.
pub fn goal(near: f64) -> f64 {
    near + (FARTHER - 1.0) * near.abs()
}

fn elements(text: &str) -> Option<Vec<f64>> {
    text.strip_prefix('[')?.strip_suffix(']')?.split(',').map(|element| element.trim().parse().ok()).collect()
}

/// Reads `{1:0.5,3:2}/5`.
fn sparse(text: &str) -> Option<(BTreeMap<u32, f64>, u32)> {
    let (elements, dimensions) = text.rsplit_once('/')?;
    let elements = elements.strip_prefix('{')?.strip_suffix('}')?;
    let pair = |text: &str| {
        let (place, element) = text.split_once(':')?;
        Some((place.trim().parse().ok()?, element.trim().parse().ok()?))
    };
    let found: Option<BTreeMap<u32, f64>> = elements.split(',').filter(|text| !text.is_empty()).map(pair).collect();
    Some((found?, dimensions.parse().ok()?))
}

/// Returns a number between 0 and 1, the same for the same arguments.
fn chance(number: usize, place: usize) -> f64 {
    let mut state =
        (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (place as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state ^= state >> 30;
    state = state.wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^= state >> 31;
    (state >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_moved_by_the_difference_of_two_others() {
        let moved = |value, x, y, z| disturbed(value, (x, y, z), 0.5, 0);
        assert_eq!(moved(ValueType::Vector, "[1,2]", "[3,0]", "[1,4]").as_deref(), Some("[2,0]"));
        assert_eq!(moved(ValueType::Halfvec, "[65504]", "[65504]", "[-65504]").as_deref(), Some("[65504]"));
        assert_eq!(moved(ValueType::Vector, "[1,2]", "[3]", "[1,4]"), None);
        assert_eq!(moved(ValueType::Vector, "1,2", "[3,0]", "[1,4]"), None);
        assert_eq!(moved(ValueType::Sparsevec, "{1:1,3:2}/5", "{3:2}/5", "{1:2,5:4}/5").as_deref(), Some("{3:3,5:-2}/5"));
        assert_eq!(moved(ValueType::Sparsevec, "{}/5", "{}/5", "{}/5").as_deref(), Some("{}/5"));
        let (zeros, ones) = ("0".repeat(1000), "1".repeat(1000));
        let flipped = disturbed(ValueType::Bit, (&zeros, &ones, &zeros), 0.3, 7).unwrap();
        let count = flipped.matches('1').count();
        assert!(flipped.len() == 1000 && (200..400).contains(&count), "{count}");
        assert_eq!(disturbed(ValueType::Bit, (&zeros, &ones, &ones), 0.3, 7).as_deref(), Some(zeros.as_str()));
    }

    #[test]
    fn the_strength_is_found_from_distances() {
        // Distances by cosine: 0.4 for rows; the goal is 0.5. With 0.5 they were 0.8.
        assert!((next_strength(0.5, 0.4, 0.8, false) - 0.25).abs() < 1e-9);
        // Of l2 the squares: 1 for rows, 1.5625 is the goal, 3.25 was measured.
        assert!((next_strength(0.5, 1.0, 3.25_f64.sqrt(), true) - 0.25).abs() < 1e-9);
        assert_eq!(next_strength(0.5, 0.4, 0.4, false), DEFAULT_STRENGTH);
        assert_eq!(next_strength(0.5, 0.0, 0.4, false), DEFAULT_STRENGTH);
        assert_eq!(next_strength(0.5, 0.4, 0.401, false), MAX_STRENGTH);
        assert_eq!((goal(0.4), goal(-2.0)), (0.5, -1.5));
    }
}
