//! Judges a made-up heap, and prints how long each step takes.
//!
//! `cargo run --release -p profiler-cli --example judge_blocks -- 10000000 10`
//!
//! The heap has blocks of 16 to 256 bytes: a table in a static that points to one block in eight, a
//! tree below each of those, further pointers, and blocks that nothing points to. The second number
//! says how many percent of the further pointers lead anywhere in the heap; the others lead to one
//! of the next 10,000 blocks. With 100, nearly every look-up misses the cache of the processor.

use std::time::Instant;

use alloc_dump::layout::StackId;
use alloc_dump::snapshot::{MemoryRegion, SnapshotThread};
use profiler_cli::analyze::held::{
    GraphBuilder, ImageMemory, ImageTrust, Judgement, RootNames, SecondLook, Verdict,
};
use profiler_cli::profile::HeapBlock;

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let far: u64 = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(10);
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) % limit
    };
    let mut blocks = Vec::with_capacity(count);
    let mut address = HEAP;
    for at in 0..count {
        let size = 16 + 8 * below(30);
        blocks.push(HeapBlock {
            address,
            size,
            stack: StackId(at as u32 % 1000),
            born_us: at as u64,
            is_in_event: false,
        });
        address += (size + 8).next_multiple_of(16);
    }
    let table = 0x2000 + 8 * count as u64 / 8 + 8;
    let maps = [
        "1000-2000 r-xp 00000000 fe:01 5 /bin/app".to_owned(),
        format!("2000-{:x} rw-p 00001000 fe:01 5 /bin/app", table.next_multiple_of(4096)),
        format!("{HEAP:x}-{:x} rw-p 00000000 00:00 0 [heap]", address.next_multiple_of(4096)),
    ];
    let regions: Vec<MemoryRegion> =
        maps.iter().filter_map(|line| MemoryRegion::parse(line.as_bytes())).collect();
    let threads = [SnapshotThread { tid: 1, registers: Some(Vec::new()), ..SnapshotThread::default() }];
    let memory =
        ImageMemory { regions: &regions, threads: &threads, pid: 1, tls_size: 1024, writable_segments: &[] };

    let mut words: Vec<(u64, u64)> = Vec::new();
    for at in (0..count).step_by(8).filter(|at| at % 64 != 0) {
        words.push((0x2000 + at as u64, blocks[at].address));
    }
    for (at, block) in blocks.iter().enumerate() {
        // The tree of eight blocks: 0 -> 1, 2; 1 -> 3, 4; 2 -> 5, 6; 3 -> 7.
        let (first, place) = (at / 8 * 8, at % 8);
        let children = [2 * place + 1, 2 * place + 2];
        let mut to = block.address;
        for child in children.into_iter().filter(|child| *child < 8 && first + child < count) {
            words.push((to, blocks[first + child].address));
            to += 8;
        }
        for _ in 0..below(3).min((block.address + block.size - to) / 8) {
            let near = (at + 1 + below(10_000) as usize) % count;
            let target = if below(100) < far { below(count as u64) as usize } else { near };
            let target = &blocks[target];
            words.push((to, target.address + below(target.size)));
            to += 8;
        }
    }

    let step = |what: &str, (since, cpu): (Instant, f64)| {
        let (all, own) = (since.elapsed().as_secs_f64(), cpu_time() - cpu);
        println!("{what:<28} {all:>6.2} s, processor {own:>6.2} s");
    };
    let now = || (Instant::now(), cpu_time());
    let begun = now();
    let graph = || {
        let at = now();
        let mut builder = GraphBuilder::new(&blocks, &memory);
        step("index", at);
        let at = now();
        words.iter().for_each(|(place, value)| builder.add(*place, *value));
        let graph = builder.finish();
        step("edges", at);
        println!("{} blocks, {} words, {} edges", blocks.len(), words.len(), graph.edges());
        graph
    };
    let trust = ImageTrust::of(true, &threads, u64::MAX);
    let names = RootNames { regions: &regions, threads: &threads, ..RootNames::default() };
    // As `leaks` does it: the second image on another thread.
    let judgement = std::thread::scope(|scope| {
        let second = scope.spawn(|| SecondLook::new(&blocks, graph(), trust));
        let graph = graph();
        let second = second.join().expect("no panic");
        let at = now();
        let judgement = Judgement::new(&blocks, graph, trust, Some(&second), &names);
        step("verdicts and dominators", at);
        judgement
    });
    let at = now();
    let sites = judgement.by_site(1000, |block| Some(block as u32 % 1000));
    step("sites", at);
    let at = now();
    let chains = sites.iter().flat_map(|site| &site.held_by);
    let links: usize = chains.filter_map(|held| judgement.chain(held.2)).map(|way| way.blocks.len()).sum();
    step("chains", at);
    step("all", begun);
    for verdict in Verdict::ALL {
        let blocks = (0..count).filter(|block| judgement.verdict(*block) == verdict).count();
        println!("{:<10} {blocks}", verdict.name());
    }
    println!("{links} links of {} sites", sites.len());
}

/// Seconds that this thread has run so far; other programs may have the processor meanwhile.
fn cpu_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).map_or(0.0, |ns| ns / 1e9)
}

const HEAP: u64 = 0x5555_0000_0000;
