use alloc_dump::layout::StackId;
use alloc_dump::snapshot::{MemoryRegion, SnapshotThread};
use foldhash::HashSet;

use super::*;
use crate::names::variables::Variable;

/// A process with a static region, a C heap, a heap of blocks, two stacks, and memory of unknown
/// owner.
fn regions() -> Vec<MemoryRegion> {
    let maps = "1000-2000 r-xp 00000000 fe:01 5   /bin/app
        2000-4000 rw-p 00001000 fe:01 5   /bin/app
        10000-20000 rw-p 00000000 00:00 0   [heap]
        30000-31000 ---p 00000000 00:00 0
        31000-41000 rw-p 00000000 00:00 0
        50000-51000 ---p 00000000 00:00 0
        51000-61000 rw-p 00000000 00:00 0
        70000-80000 rw-p 00000000 00:00 0   [stack]";
    maps.lines().map(|line| MemoryRegion::parse(line.trim().as_bytes()).expect("a line")).collect()
}

fn threads() -> Vec<SnapshotThread> {
    let main = SnapshotThread { tid: 7, stack_pointer: Some(0x78000), ..SnapshotThread::default() };
    let worker = SnapshotThread {
        tid: 8,
        name: b"worker".to_vec(),
        stack_pointer: Some(0x38000),
        thread_pointer: 0x40700,
        ..SnapshotThread::default()
    };
    vec![main, worker]
}

/// When copying began.
const BEGUN_US: u64 = 1000;

struct Image {
    blocks: Vec<HeapBlock>,
    words: Vec<(u64, u64)>,
    threads: Vec<SnapshotThread>,
    is_complete: bool,
}

impl Image {
    fn new(blocks: &[(u64, u64)], words: &[(u64, u64)]) -> Image {
        let block = |(at, &(address, size)): (usize, &(u64, u64))| HeapBlock {
            address,
            size,
            stack: StackId(at as u32),
            ..HeapBlock::default()
        };
        let mut words = words.to_vec();
        words.sort_unstable();
        Image {
            blocks: blocks.iter().enumerate().map(block).collect(),
            words,
            threads: threads(),
            is_complete: true,
        }
    }

    fn graph(&self) -> BlockGraph {
        let regions = regions();
        let memory = ImageMemory {
            regions: &regions,
            threads: &self.threads,
            pid: 7,
            tls_size: 0x100,
            writable_segments: &[],
        };
        let mut builder = GraphBuilder::new(&self.blocks, &memory);
        self.words.iter().for_each(|(place, value)| builder.add(*place, *value));
        builder.finish()
    }

    fn trust(&self) -> ImageTrust {
        ImageTrust::of(self.is_complete, &self.threads, BEGUN_US)
    }

    fn judged(&self, second: Option<&SecondLook>) -> Judgement<'_> {
        let (regions, threads) = (regions(), threads());
        let statics = [Variable { start: 0x2100, size: 16, name: "app::CACHE".to_owned() }];
        let thread_locals = [Variable { start: 0x80, size: 0x10, name: "app::LOCAL".to_owned() }];
        let names = RootNames {
            statics: &statics,
            thread_locals: &thread_locals,
            regions: &regions,
            threads: &threads,
        };
        Judgement::new(&self.blocks, self.graph(), self.trust(), second, &names)
    }

    /// Verdicts, if a second image says the same.
    fn verdicts(&self) -> String {
        let second = SecondLook::new(&self.blocks, self.graph(), self.trust());
        let judgement = self.judged(Some(&second));
        (0..self.blocks.len()).map(|at| judgement.verdict(at).name().chars().next().unwrap()).collect()
    }
}

#[test]
fn every_kind_of_root() {
    let places = [0x2100, 0x78100, 0x78028, 0x38000, 0x40680, 0x40700, 0x11000, 0x55000];
    let blocks: Vec<(u64, u64)> = (0..places.len() as u64).map(|at| (0x12000 + 64 * at, 32)).collect();
    let words: Vec<(u64, u64)> = places.iter().zip(&blocks).map(|(place, block)| (*place, block.0)).collect();
    let image = Image::new(&blocks, &words);
    let judgement = image.judged(None);
    let roots: Vec<_> = (0..blocks.len())
        .map(|at| {
            let chain = judgement.chain(at).expect("a way");
            (judgement.verdict(at).name(), chain.root.kind, chain.root.name, chain.offset)
        })
        .collect();
    let worker = |what: &str| format!("{what} of thread 'worker' (8)");
    let expected = [
        ("held", RootKind::Static, "app::CACHE".to_owned(), 0),
        ("held", RootKind::Stack, "stack of thread 7".to_owned(), 0x100),
        ("held", RootKind::Stack, "stack of thread 7".to_owned(), 0x28),
        ("held", RootKind::Stack, worker("stack"), 0),
        ("held", RootKind::Tls, worker("app::LOCAL"), 0),
        ("held", RootKind::Tls, worker("thread-locals"), 0x40700 - 0x31000),
        ("maybe", RootKind::Unknown, "heap of the C library".to_owned(), 0x1000),
        ("maybe", RootKind::Unknown, "memory without a name".to_owned(), 0x4000),
    ];
    assert_eq!(roots, expected);
}

#[test]
fn registers_hold_and_make_a_second_image_needless() {
    let mut image = Image::new(&[(0x12000, 8), (0x13000, 8)], &[]);
    assert_eq!(image.judged(None).verdict(1), Verdict::Maybe, "it may be in a register");
    for thread in &mut image.threads {
        thread.registers = Some(vec![1, 0x12007]);
    }
    let judgement = image.judged(None);
    assert_eq!((judgement.verdict(0), judgement.verdict(1)), (Verdict::Held, Verdict::Lost));
    assert_eq!(judgement.chain(0).map(|chain| chain.root.kind), Some(RootKind::Register));
}

#[test]
fn pointers_into_the_middle_hold_and_stale_stack_words_do_not() {
    let blocks = [(0x12000, 64), (0x12100, 64), (0x12200, 64), (0x12300, 64)];
    let words = [
        (0x2000, 0x1203F),  // The last byte; a tag bit.
        (0x2008, 0x12148),  // Behind the end, where no block is.
        (0x77F78, 0x12200), // Below the red zone.
        (0x37F00, 0x12300),
    ];
    assert_eq!(Image::new(&blocks, &words).verdicts(), "hlll");
}

#[test]
fn blocks_hold_blocks_and_a_block_does_not_hold_itself() {
    let blocks = [(0x12000, 64), (0x12100, 64), (0x12200, 64), (0x12300, 64), (0x12400, 16), (0x12410, 16)];
    let words = [
        (0x2000, 0x12000),
        (0x12010, 0x12100),
        (0x12108, 0x12220),
        (0x12300, 0x12300), // Itself.
        (0x12400, 0x12410), // A cycle.
        (0x12410, 0x12400),
        (0x12118, 0x12000),
    ];
    let image = Image::new(&blocks, &words);
    assert_eq!(image.verdicts(), "hhhlll");
    let judgement = image.judged(None);
    let chain = judgement.chain(2).unwrap();
    let steps: Vec<_> = chain.blocks.iter().map(|step| (step.block.address, step.offset)).collect();
    assert_eq!(steps, [(0x12000, 0x10), (0x12100, 8), (0x12200, 0)]);
    assert_eq!((chain.root.name.as_str(), chain.offset), ("statics of app", 0));
    assert_eq!(judgement.retained_of_all()[..3], [192, 128, 64]);
}

#[test]
fn the_end_of_a_range_counts_only_if_nothing_else_holds_the_next_block() {
    let blocks = [(0x12000, 64), (0x12040, 64), (0x12080, 64)];
    // Start and end of the first block; the second one is held from within the third.
    let range = [(0x78000, 0x12000), (0x78008, 0x12040)];
    let mut image = Image::new(&blocks, &range);
    assert_eq!(image.verdicts(), "hhl");
    image.words.extend([(0x78100, 0x12080)]);
    image.words.insert(0, (0x12080, 0x12050));
    assert_eq!(image.verdicts(), "hhh");
    let judgement = image.judged(None);
    assert_eq!(judgement.chain(1).unwrap().blocks.len(), 2, "by way of the third block");
}

#[test]
fn a_forgotten_vec_is_one_finding() {
    let blocks = [(0x12000, 64), (0x12100, 8), (0x12200, 16), (0x12300, 32), (0x12400, 8)];
    let words = [(0x12200, 0x12000), (0x12208, 0x12100), (0x12000, 0x12300)];
    let image = Image::new(&blocks, &words);
    let second = SecondLook::new(&image.blocks, image.graph(), image.trust());
    let judgement = image.judged(Some(&second));
    let leaders: Vec<_> = (0..5).map(|at| judgement.lost_with(at)).collect();
    assert_eq!(leaders, [Some(2), Some(2), Some(2), Some(2), Some(4)]);
    let sums = judgement.by_site(5, |block| Some(block as u32));
    assert_eq!((sums[2].lost_with_blocks, sums[2].lost_with_bytes, sums[2].retained), (3, 104, 120));
    assert_eq!((sums[4].lost_with_blocks, sums[4].retained), (0, 8));
}

#[test]
fn two_images_must_agree() {
    let blocks = [(0x12000, 64), (0x12100, 64), (0x12200, 64)];
    let first = Image::new(&blocks, &[]);
    let mut second = Image::new(&blocks[..2], &[(0x2000, 0x12100)]);
    let look = SecondLook::new(&second.blocks, second.graph(), second.trust());
    let judgement = first.judged(Some(&look));
    let verdicts = [0, 1, 2].map(|at| judgement.verdict(at));
    // Reached in the second image; freed before the second image.
    assert_eq!(verdicts, [Verdict::Lost, Verdict::Maybe, Verdict::Maybe]);
    second.is_complete = false;
    let look = SecondLook::new(&second.blocks, second.graph(), second.trust());
    assert_eq!(first.judged(Some(&look)).verdict(0), Verdict::Unknown, "words are missing");
}

#[test]
fn a_pointer_to_the_end_holds_only_a_block_that_nothing_else_holds() {
    // The first has 16 bytes, as an `Arc` of a value without size.
    let blocks = [(0x12000, 16), (0x12100, 24), (0x12118, 24)];
    let words = [(0x2000, 0x12010), (0x2010, 0x12118)];
    assert_eq!(Image::new(&blocks, &words).verdicts(), "hlh", "a block begins at the second end");
    assert_eq!(Image::new(&blocks, &[(0x2000, 0x12012)]).verdicts(), "lll");
}

/// Lists of free memory lead to the header of the next chunk, which begins in the block before it.
#[test]
fn notes_of_the_allocator_of_glibc_hold_nothing() {
    // Sizes a little above a multiple of 16, a multiple of 16, the least; and one that ends before.
    let blocks = [(0x12010, 88), (0x12110, 96), (0x12210, 1), (0x12310, 44)];
    let next = [0x12010 + 80, 0x12110 + 96, 0x12210 + 16, 0x12310 + 48];
    let from =
        |place: u64| -> Vec<(u64, u64)> { (0..4).map(|at| (place + 8 * at, next[at as usize])).collect() };
    assert_eq!(Image::new(&blocks, &from(0x11000)).verdicts(), "llll");
    // The same addresses in a static of the program are pointers.
    assert_eq!(Image::new(&blocks, &from(0x2000)).verdicts(), "hhll");
    // Another address in a block is one, too.
    assert_eq!(Image::new(&blocks, &[(0x11000, 0x12010 + 72)]).verdicts(), "mlll");
}

#[test]
fn a_block_in_the_middle_of_a_realloc_is_unknown() {
    let mut image = Image::new(&[(0x12000, 64)], &[(0x2000, 0x12000)]);
    image.blocks[0].is_in_event = true;
    assert_eq!(image.verdicts(), "u");
}

/// The page with the pointer may have been copied before the block was allocated.
#[test]
fn a_block_that_is_born_while_pages_are_copied_is_not_lost() {
    let mut image = Image::new(&[(0x12000, 64), (0x12100, 64), (0x12200, 64)], &[(0x2000, 0x12200)]);
    for (block, born_us) in image.blocks.iter_mut().zip([BEGUN_US - 1, BEGUN_US, BEGUN_US]) {
        block.born_us = born_us;
    }
    assert_eq!(image.verdicts(), "luh");
}

#[test]
fn stacks_of_ended_threads_hold_nothing() {
    let blocks = [(0x12000, 64)];
    let control = 0x60700;
    let words = [(0x58000, 0x12000), (control, control), (control + 16, control)];
    assert_eq!(Image::new(&blocks, &words).verdicts(), "l");
    assert_eq!(Image::new(&blocks, &words[..2]).verdicts(), "m", "no control block");
    // Not aligned as control blocks are; not at the end of the mapping.
    for other in [0x60708, 0x5f700] {
        let alike = [words[0], (other, other), (other + 16, other)];
        assert_eq!(Image::new(&blocks, &alike).verdicts(), "m", "{other:x}");
    }
    let above = [words[0], words[1], words[2], (0x60f00, 0x12000)];
    assert_eq!(Image::new(&blocks, &above).verdicts(), "l", "the page of the control block");
    // A thread of which nothing is known may be the one on that stack.
    let mut image = Image::new(&blocks, &words);
    image.threads.push(SnapshotThread { tid: 9, ..SnapshotThread::default() });
    assert_eq!(image.verdicts(), "m");
    // It is the stack of a running thread.
    image.threads[2].thread_pointer = control;
    assert_eq!(image.verdicts(), "h");
}

#[test]
fn a_site_retains_nested_blocks_once() {
    // A list of four nodes of one site, each of 16 bytes, with a text of 100 bytes each.
    let node = |at: u64| 0x12000 + 0x40 * at;
    let text = |at: u64| 0x14000 + 0x100 * at;
    let mut blocks: Vec<(u64, u64)> = (0..4).map(|at| (node(at), 16)).collect();
    blocks.extend((0..4).map(|at| (text(at), 100)));
    let mut words = vec![(0x2104, 0), (0x2108, node(0))];
    words.extend((0..3).map(|at| (node(at), node(at + 1))));
    words.extend((0..4).map(|at| (node(at) + 8, text(at))));
    let image = Image::new(&blocks, &words);
    let judgement = image.judged(None);
    let sums = judgement.by_site(2, |block| Some(u32::from(block >= 4)));
    assert_eq!((sums[0].bytes, sums[0].blocks, sums[0].retained), (64, 4, 4 * 116));
    assert_eq!((sums[0].largest, sums[0].largest_retained), (0, 464));
    assert_eq!((sums[1].bytes, sums[1].retained), (400, 400));
    let cache = judgement.roots().iter().position(|root| root.name == "app::CACHE").unwrap();
    assert_eq!(sums[0].held_by, [(cache, 64, 0)]);
    let mut chains = std::collections::BTreeMap::new();
    judgement.visit_retention(
        |block| Some(u32::from(block >= 4)),
        |root, chain, bytes| *chains.entry((format!("{root:?}"), chain.to_vec())).or_insert(0) += bytes,
    );
    let root = format!("{:?}", RetentionRoot::Root(cache));
    assert_eq!(
        chains.into_iter().collect::<Vec<_>>(),
        [((root.clone(), vec![0]), 64), ((root, vec![0, 1]), 400)]
    );
}

#[test]
fn what_two_blocks_of_a_site_hold_together_is_retained_by_the_site() {
    let blocks = [(0x12000, 16), (0x12100, 16), (0x14000, 4096)];
    let words = [(0x2100, 0x12000), (0x2108, 0x12100), (0x12000, 0x14000), (0x12100, 0x14000)];
    let image = Image::new(&blocks, &words);
    let judgement = image.judged(None);
    let sums = judgement.by_site(2, |block| Some(u32::from(block == 2)));
    assert_eq!((sums[0].retained, sums[0].largest_retained), (16 + 16 + 4096, 16));
    // Something else holds it, too.
    let held = [&words[..], &[(0x78100, 0x14000)]].concat();
    let image = Image::new(&blocks, &held);
    assert_eq!(image.judged(None).by_site(2, |block| Some(u32::from(block == 2)))[0].retained, 32);
}

/// A small generator of random numbers (xorshift), so that a failure names its seed.
struct GraphNumbers(u64);

impl GraphNumbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// Nodes that `starts` reach, without a node.
fn reached(starts: &[usize], edges: &[(usize, usize)], without: Option<usize>) -> HashSet<usize> {
    reached_without(starts, edges, |at| Some(at) == without)
}

/// Nodes that `starts` reach, without those that are gone.
fn reached_without(
    starts: &[usize],
    edges: &[(usize, usize)],
    is_gone: impl Fn(usize) -> bool,
) -> HashSet<usize> {
    let mut found: HashSet<usize> = starts.iter().copied().filter(|at| !is_gone(*at)).collect();
    loop {
        let before = found.len();
        for (from, to) in edges {
            if found.contains(from) && !is_gone(*to) {
                found.insert(*to);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Compares with a judge that tries everything: reachability by repetition, what a block or a site
/// retains by removing it.
#[test]
fn the_judge_agrees_with_a_naive_one_on_random_graphs() {
    for seed in 1..400u64 {
        let mut numbers = GraphNumbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let count = 1 + numbers.below(24) as usize;
        let address = |at: usize| 0x12000 + 0x100 * at as u64;
        let sizes: Vec<u64> = (0..count).map(|_| 8 + 8 * numbers.below(16)).collect();
        let blocks: Vec<(u64, u64)> = (0..count).map(|at| (address(at), sizes[at])).collect();
        let (mut words, mut edges) = (Vec::new(), Vec::new());
        for from in 0..count {
            for slot in 0..sizes[from] / 8 {
                if numbers.below(10) < 2 {
                    let to = numbers.below(count as u64) as usize;
                    words.push((address(from) + 8 * slot, address(to) + numbers.below(sizes[to])));
                    edges.push((from, to));
                }
            }
        }
        let (mut named, mut unknown) = (Vec::new(), Vec::new());
        for slot in 0..numbers.below(4) {
            let to = numbers.below(count as u64) as usize;
            words.push((0x2000 + 0x10 * slot, address(to)));
            named.push(to);
        }
        for slot in 0..numbers.below(3) {
            let to = numbers.below(count as u64) as usize;
            words.push((0x11000 + 8 * slot, address(to)));
            unknown.push(to);
        }
        let image = Image::new(&blocks, &words);
        let second = SecondLook::new(&image.blocks, image.graph(), image.trust());
        let judgement = image.judged(Some(&second));
        let held = reached(&named, &edges, None);
        let any = reached(&[named.clone(), unknown.clone()].concat(), &edges, None);
        let verdict_of = |at: usize| match (held.contains(&at), any.contains(&at)) {
            (true, _) => Verdict::Held,
            (_, true) => Verdict::Maybe,
            _ => Verdict::Lost,
        };
        let bytes = |nodes: &HashSet<usize>| nodes.iter().map(|at| sizes[*at]).sum::<u64>();
        let retained = judgement.retained_of_all();
        let mut lost_seen: HashSet<usize> = HashSet::default();
        for (at, of_block) in retained.iter().enumerate() {
            let verdict = verdict_of(at);
            assert_eq!(judgement.verdict(at), verdict, "seed {seed}, block {at}");
            let among: Vec<(usize, usize)> =
                edges.iter().copied().filter(|(from, to)| verdict_of(*from) == verdict_of(*to)).collect();
            let starts: Vec<usize> = match verdict {
                Verdict::Held => named.clone(),
                Verdict::Maybe => unknown.iter().copied().filter(|to| !held.contains(to)).collect(),
                // Leaders: nothing reaches them that they do not reach.
                _ => {
                    let from_here = reached(&[at], &among, None);
                    let above = (0..count).filter(|other| reached(&[*other], &among, None).contains(&at));
                    let is_source = above.clone().all(|other| from_here.contains(&other));
                    let first = above.min() == Some(at);
                    assert_eq!(
                        judgement.lost_with(at) == Some(at),
                        is_source && first,
                        "seed {seed}, block {at}"
                    );
                    lost_seen.insert(at);
                    (0..count).filter(|other| judgement.lost_with(*other) == Some(*other)).collect()
                }
            };
            let all = reached(&starts, &among, None);
            assert!(all.contains(&at), "seed {seed}, block {at}");
            let without = reached(&starts, &among, Some(at));
            assert_eq!(*of_block, bytes(&all) - bytes(&without), "seed {seed}, block {at}");
            // The way leads from a root to the block, by edges that there are.
            if let Some(chain) = judgement.chain(at) {
                let way: Vec<usize> = chain.blocks.iter().map(|step| step.block.stack.0 as usize).collect();
                assert!(named.contains(&way[0]) || unknown.contains(&way[0]));
                assert!(way.windows(2).all(|pair| edges.contains(&(pair[0], pair[1]))));
                assert_eq!(way.last(), Some(&at));
            } else {
                assert_eq!(verdict, Verdict::Lost);
            }
        }
        // Sites: each block has one of three.
        let site = |at: usize| (at % 3) as u32;
        let sums = judgement.by_site(3, |at| Some(site(at)));
        let lost: Vec<usize> = (0..count).filter(|at| judgement.lost_with(*at) == Some(*at)).collect();
        let same: Vec<(usize, usize)> =
            edges.iter().copied().filter(|(from, to)| verdict_of(*from) == verdict_of(*to)).collect();
        let starts: Vec<usize> = named
            .iter()
            .copied()
            .chain(unknown.iter().copied().filter(|to| !held.contains(to)))
            .chain(lost)
            .collect();
        let all = bytes(&reached_without(&starts, &same, |_| false));
        for (number, sum) in sums.iter().enumerate() {
            let without = reached_without(&starts, &same, |at| site(at) == number as u32);
            let expected = all - bytes(&without);
            assert_eq!(
                (sum.retained, sum.retained_is_least),
                (expected, false),
                "seed {seed}, site {number}"
            );
        }
    }
}
