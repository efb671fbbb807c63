//! The Merkle tree of RFC 6962, section 2.1: hashes, and proofs by them.

use aws_lc_rs::digest::{Context, SHA256};

use crate::authz::digest::sha256;

/// A hash of the tree.
pub type Hash = [u8; 32];

/// Most hashes of an inclusion proof, in a tree of up to 2⁶³ leaves.
pub const MAX_PATH: usize = 63;

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(entry);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The hash of a node of two.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut node = [0; 65];
    let (prefix, children) = node.split_at_mut(1);
    prefix.fill(1);
    let (one, other) = children.split_at_mut(32);
    one.copy_from_slice(left);
    other.copy_from_slice(right);
    sha256(&node)
}

/// The root over hashes of complete subtrees of one size, of which the last alone may be smaller: the tree splits at the
/// largest power of two, whether it is counted in leaves or in subtrees.
#[must_use]
pub fn root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => sha256(&[]),
        [one] => *one,
        many => {
            // The largest power of two below their number.
            let middle = many.len().next_power_of_two() / 2;
            let (left, right) = many.split_at(middle);
            node_hash(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `size`, which is 2 at least.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// A tree that grows: of what is complete, the hashes to its left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of complete subtrees, the largest first: one for each bit of the size.
    complete: Vec<Hash>,
}

impl Frontier {
    /// How many leaves it has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.complete.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.complete.push(hash);
        self.size += 1;
    }

    /// Appends a complete subtree of 2^`height` leaves, where one fits.
    pub fn push_complete(&mut self, height: u32, root: Hash) {
        debug_assert!(self.size.trailing_zeros() >= height, "a subtree begins at a multiple of its size");
        let mut hash = root;
        for _ in 0..(self.size >> height).trailing_ones() {
            if let Some(left) = self.complete.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.complete.push(hash);
        self.size += 1 << height;
    }

    /// The root hash.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut parts = self.complete.iter().rev();
        let Some(last) = parts.next() else { return root(&[]) };
        parts.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Hashes of complete subtrees of 256^`level` leaves, as tiles hold them.
pub trait Hashes {
    /// Why they cannot be had.
    type Error;

    /// `count` hashes, from the one numbered `first` of its level on; all of them in one tile.
    ///
    /// # Errors
    /// If they cannot be had.
    fn hashes(&self, level: u8, first: u64, count: usize) -> Result<Vec<Hash>, Self::Error>;
}

/// The hash of the leaves from `start` to before `end`, a range that the tree's recursion comes by.
///
/// # Errors
/// As of the hashes.
pub fn range_hash<H: Hashes>(hashes: &H, start: u64, end: u64) -> Result<Hash, H::Error> {
    let size = end.saturating_sub(start);
    if size == 0 {
        return Ok(root(&[]));
    }
    if size.is_power_of_two() {
        let (level, height) = (size.trailing_zeros() / 8, size.trailing_zeros() % 8);
        let level = u8::try_from(level).unwrap_or(u8::MAX);
        return Ok(root(&hashes.hashes(level, start >> (8 * u32::from(level)), 1 << height)?));
    }
    let middle = start + split(size);
    Ok(node_hash(&range_hash(hashes, start, middle)?, &range_hash(hashes, middle, end)?))
}

/// The inclusion proof of a leaf in the tree of `size` leaves (`PATH`, section 2.1.1): from its sibling up.
///
/// # Errors
/// As of the hashes.
pub fn prove_inclusion<H: Hashes>(hashes: &H, index: u64, size: u64) -> Result<Vec<Hash>, H::Error> {
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(range_hash(hashes, middle, end)?);
            end = middle;
        } else {
            path.push(range_hash(hashes, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The root to which an inclusion proof leads (RFC 9162, section 2.1.3.2); `None` if it is none of that leaf in a tree of that size.
#[must_use]
pub fn included_root(leaf: &Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            if node & 1 == 0 {
                let up = node.trailing_zeros().min(63);
                (node, last) = (node >> up, last >> up);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    (last == 0).then_some(hash)
}

/// The consistency proof between the trees of `old` and `new` leaves, 0 < `old` ≤ `new` (`PROOF`, section 2.1.2).
///
/// # Errors
/// As of the hashes.
pub fn prove_consistency<H: Hashes>(hashes: &H, old: u64, new: u64) -> Result<Vec<Hash>, H::Error> {
    let mut path = Vec::new();
    let (mut start, mut end, mut is_whole) = (0, new, true);
    while old < end {
        let middle = start + split(end - start);
        if old <= middle {
            path.push(range_hash(hashes, middle, end)?);
            end = middle;
        } else {
            path.push(range_hash(hashes, start, middle)?);
            (start, is_whole) = (middle, false);
        }
    }
    if !is_whole {
        path.push(range_hash(hashes, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Whether a consistency proof leads from one tree to the other (RFC 9162, section 2.1.4.2).
#[must_use]
pub fn is_consistent((old, old_root): (u64, &Hash), (new, new_root): (u64, &Hash), path: &[Hash]) -> bool {
    if old == 0 || old >= new {
        return old == new && old_root == new_root && path.is_empty() || old == 0 && path.is_empty();
    }
    let (mut rest, first) = if old.is_power_of_two() {
        (path, *old_root)
    } else {
        let Some((first, rest)) = path.split_first() else { return false };
        (rest, *first)
    };
    let (mut node, mut last) = (old - 1, new - 1);
    let up = node.trailing_ones();
    (node, last) = (node >> up, last >> up);
    let (mut from, mut to) = (first, first);
    while let Some((sibling, others)) = rest.split_first() {
        rest = others;
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            from = node_hash(sibling, &from);
            to = node_hash(sibling, &to);
            if node & 1 == 0 {
                let up = node.trailing_zeros().min(63);
                (node, last) = (node >> up, last >> up);
            }
        } else {
            to = node_hash(&to, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && from == *old_root && to == *new_root
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::authz::hex;

    fn at(number: u64) -> usize {
        usize::try_from(number).unwrap()
    }

    /// Straight from the definition.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [one] => *one,
            many => {
                let middle =
                    (1..).map(|bits| 1_usize << bits).take_while(|size| *size < many.len()).last().unwrap_or(1);
                node_hash(&naive(&many[..middle]), &naive(&many[middle..]))
            }
        }
    }

    struct Leaves(Vec<Hash>);

    impl Hashes for Leaves {
        type Error = Infallible;

        fn hashes(&self, level: u8, first: u64, count: usize) -> Result<Vec<Hash>, Infallible> {
            let (size, first_here) = (256_usize.pow(level.into()), at(first));
            assert_eq!(first / 256, (first + count as u64 - 1) / 256, "of one tile");
            Ok((0..count).map(|at| naive(&self.0[(first_here + at) * size..][..size])).collect())
        }
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    /// The test vectors of Certificate Transparency's own tree (`merkletree` of google/certificate-transparency).
    #[test]
    fn roots_are_those_of_the_reference_implementation() {
        let inputs: [&[u8]; 8] = [
            b"",
            b"\0",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = Frontier::default();
        assert_eq!(hex::encode(&tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (input, root) in inputs.iter().zip(roots) {
            tree.push(leaf_hash(input));
            assert_eq!(hex::encode(&tree.root()), root);
        }
    }

    #[test]
    fn a_tree_that_grows_has_the_root_of_the_definition() {
        let leaves = leaves(700);
        let mut tree = Frontier::default();
        for (size, leaf) in leaves.iter().enumerate() {
            assert_eq!(tree.root(), naive(&leaves[..size]), "{size}");
            assert_eq!(tree.root(), range_hash(&Leaves(leaves.clone()), 0, size as u64).unwrap());
            tree.push(*leaf);
        }
        let mut by_parts = Frontier::default();
        by_parts.push_complete(9, naive(&leaves[..512]));
        by_parts.push_complete(7, naive(&leaves[512..640]));
        leaves[640..].iter().for_each(|leaf| by_parts.push(*leaf));
        assert_eq!(by_parts, tree);
    }

    #[test]
    fn every_leaf_is_proved_and_no_other_in_its_place() {
        let all = Leaves(leaves(70));
        for size in 1..=70 {
            let root = naive(&all.0[..at(size)]);
            for index in 0..size {
                let path = prove_inclusion(&all, index, size).unwrap();
                let leaf = &all.0[at(index)];
                assert_eq!(included_root(leaf, index, size, &path), Some(root), "{index} of {size}");
                for wrong in (0..size).filter(|wrong| *wrong != index) {
                    assert_ne!(included_root(leaf, wrong, size, &path), Some(root), "{index} as {wrong} of {size}");
                }
                for cut in 0..path.len() {
                    assert_ne!(included_root(leaf, index, size, &path[..cut]), Some(root));
                    let mut other = path.clone();
                    other[cut][0] ^= 1;
                    assert_ne!(included_root(leaf, index, size, &other), Some(root));
                }
                let long: Vec<Hash> = path.iter().copied().chain([root]).collect();
                assert_ne!(included_root(leaf, index, size, &long), Some(root));
            }
            assert_eq!(included_root(&all.0[0], size, size, &[]), None);
        }
        assert_eq!(included_root(&all.0[0], 0, 0, &[]), None);
    }

    #[test]
    fn every_tree_is_proved_to_go_on_and_no_other() {
        let all = Leaves(leaves(70));
        for new in 1..=70 {
            let new_root = naive(&all.0[..at(new)]);
            for old in 1..=new {
                let old_root = naive(&all.0[..at(old)]);
                let path = prove_consistency(&all, old, new).unwrap();
                assert!(is_consistent((old, &old_root), (new, &new_root), &path), "{old} to {new}");
                let wrong = leaf_hash(b"other");
                assert!(!is_consistent((old, &wrong), (new, &new_root), &path), "{old} to {new}");
                assert!(!is_consistent((old, &old_root), (new, &wrong), &path), "{old} to {new}");
                for cut in 0..path.len() {
                    assert!(!is_consistent((old, &old_root), (new, &new_root), &path[..cut]));
                }
                assert!(new == old || !is_consistent((new, &new_root), (old, &old_root), &path));
            }
            assert!(is_consistent((0, &root(&[])), (new, &new_root), &[]));
        }
    }
}
