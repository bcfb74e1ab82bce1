//! A program that holds and loses blocks in every way that a snapshot should tell apart. Each
//! function of the module `plant` allocates blocks of a kind of their own; its name says how they
//! are held or lost. The program takes the snapshot `mid` while everything is in place. It sets the
//! mark `holding` when it holds blocks in all of its own ways, and `planted` when it has lost
//! others.
//!
//! With the feature `mimalloc`, the blocks are those of mimalloc.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

#[cfg(not(feature = "mimalloc"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker<mimalloc::MiMalloc> =
    alloc_tracker::AllocTracker::new(mimalloc::MiMalloc);

/// Set when the threads may end.
static IS_OVER: AtomicBool = AtomicBool::new(false);
/// Set when a register has the address that no memory has.
static IS_IN_REGISTER: AtomicBool = AtomicBool::new(false);

fn main() {
    // All threads have their blocks before the snapshot is taken.
    let ready = Arc::new(Barrier::new(5));
    let threads = [
        spawn(&ready, plant::thread_local_of_a_live_thread),
        spawn(&ready, plant::local_of_a_blocked_thread),
        spawn(&ready, plant::only_in_a_register),
        spawn(&ready, plant::receiver_of_a_blocked_thread),
    ];
    std::thread::spawn(plant::thread_local_of_an_ended_thread).join().expect("a thread");
    plant::static_vec();
    plant::leaked_into_a_static();
    plant::static_hash_map();
    plant::static_b_tree_map();
    plant::static_linked_list();
    plant::static_vec_deque();
    plant::arc_into_raw();
    plant::low_tag_bit();
    plant::pointer_into_the_middle();
    plant::only_in_c_memory();
    plant::only_in_a_mapping();
    plant::only_in_a_frozen_mapping();
    plant::only_in_a_hidden_mapping();
    plant::only_in_a_mapping_that_copies_lack();
    plant::only_in_a_mapping_that_is_wiped_in_copies();
    plant::pointer_to_the_end();
    alloc_tracker::mark("holding");
    plant::forgotten_box();
    plant::rc_cycle();
    plant::points_to_itself();
    plant::forgotten_vec_of_boxes();
    plant::packed_pointer();
    plant::high_tag_bits();
    let local = plant::local_of_main();
    let channel = plant::channel_of_main();
    alloc_tracker::mark("planted");
    ready.wait();
    while !IS_IN_REGISTER.load(SeqCst) {
        std::thread::yield_now();
    }
    overwrite_the_stack();
    match alloc_tracker::snapshot("mid") {
        Ok(()) => println!("snapshot taken"),
        Err(error) => println!("{error}"),
    }
    black_box((&local, &channel));
    plant::use_statics();
    // The threads go on until the process has ended, so that the last snapshot sees them.
    if std::env::args().nth(1).as_deref() == Some("end-threads") {
        IS_OVER.store(true, SeqCst);
        threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    }
}

fn spawn(ready: &Arc<Barrier>, body: impl FnOnce(&Barrier) + Send + 'static) -> std::thread::JoinHandle<()> {
    let ready = Arc::clone(ready);
    std::thread::spawn(move || body(&ready))
}

/// Overwrites what the functions that have returned left on the stack.
#[inline(never)]
fn overwrite_the_stack() {
    black_box(&mut [0u64; 8192]);
}

fn wait_until_over() {
    while !IS_OVER.load(SeqCst) {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

#[allow(clippy::vec_box, reason = "each box is to be a block")]
mod plant {
    use std::arch::asm;
    use std::cell::{Cell, RefCell};
    use std::collections::{BTreeMap, HashMap, LinkedList, VecDeque};
    use std::hint::black_box;
    use std::ptr::null_mut;
    use std::rc::Rc;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Barrier, Mutex};

    use super::{IS_IN_REGISTER, IS_OVER, overwrite_the_stack, wait_until_over};

    static VEC: Mutex<Vec<Box<[u8; 101]>>> = Mutex::new(Vec::new());
    static LEAKED: AtomicPtr<[u8; 102]> = AtomicPtr::new(null_mut());
    static HASH_MAP: Mutex<Option<HashMap<u32, Box<[u8; 103]>>>> = Mutex::new(None);
    static B_TREE_MAP: Mutex<BTreeMap<u32, Box<[u8; 104]>>> = Mutex::new(BTreeMap::new());
    static LINKED_LIST: Mutex<LinkedList<[u8; 105]>> = Mutex::new(LinkedList::new());
    static VEC_DEQUE: Mutex<VecDeque<Box<[u8; 106]>>> = Mutex::new(VecDeque::new());
    static ARC: AtomicPtr<[u8; 107]> = AtomicPtr::new(null_mut());
    static TAGGED: AtomicUsize = AtomicUsize::new(0);
    static MIDDLE: AtomicPtr<u8> = AtomicPtr::new(null_mut());
    static C_MEMORY: AtomicPtr<usize> = AtomicPtr::new(null_mut());
    static END: AtomicPtr<()> = AtomicPtr::new(null_mut());
    static MAPPINGS: [AtomicPtr<usize>; 5] = [const { AtomicPtr::new(null_mut()) }; 5];
    static HIGH_TAG: AtomicUsize = AtomicUsize::new(0);
    static mut PACKED: Packed = Packed { tag: 1, pointer: null_mut() };

    thread_local! {
        // Without a destructor, so that the block is not freed when the thread ends.
        static OF_LIVE: Cell<*mut [u8; 108]> = const { Cell::new(null_mut()) };
        static OF_ENDED: Cell<*mut [u8; 109]> = const { Cell::new(null_mut()) };
    }

    #[repr(C, packed)]
    struct Packed {
        tag: u8,
        pointer: *mut [u8; 117],
    }

    /// The compiler removes a static that is stored and never read, and with it what it holds.
    pub(super) fn use_statics() {
        black_box((&LEAKED, &ARC, &TAGGED, &MIDDLE, &C_MEMORY, &MAPPINGS, &HIGH_TAG));
        black_box((&END, &raw const PACKED));
    }

    /// Ten boxes in a Vec of 16 pointers.
    #[inline(never)]
    pub(super) fn static_vec() {
        let mut boxes = VEC.lock().unwrap();
        boxes.reserve_exact(16);
        for _ in 0..10 {
            boxes.push(Box::new([1; 101]));
        }
    }

    #[inline(never)]
    pub(super) fn leaked_into_a_static() {
        LEAKED.store(Box::leak(Box::new([1; 102])), SeqCst);
    }

    /// Twenty boxes and a table.
    #[inline(never)]
    pub(super) fn static_hash_map() {
        let mut map = HashMap::with_capacity(20);
        for key in 0..20 {
            map.insert(key, Box::new([1; 103]));
        }
        *HASH_MAP.lock().unwrap() = Some(map);
    }

    /// Thirty boxes and some nodes.
    #[inline(never)]
    pub(super) fn static_b_tree_map() {
        let mut map = B_TREE_MAP.lock().unwrap();
        for key in 0..30 {
            map.insert(key, Box::new([1; 104]));
        }
    }

    /// Fifteen nodes.
    #[inline(never)]
    pub(super) fn static_linked_list() {
        let mut list = LINKED_LIST.lock().unwrap();
        for _ in 0..15 {
            list.push_back([1; 105]);
        }
    }

    /// Eight boxes, and a ring of eight pointers that begins in its middle.
    #[inline(never)]
    pub(super) fn static_vec_deque() {
        let mut deque = VEC_DEQUE.lock().unwrap();
        deque.reserve_exact(8);
        for round in 0..8 {
            if round % 2 == 0 {
                deque.push_back(Box::new([1; 106]));
            } else {
                deque.push_front(Box::new([1; 106]));
            }
        }
    }

    #[inline(never)]
    pub(super) fn arc_into_raw() {
        ARC.store(Arc::into_raw(Arc::new([1u8; 107])).cast_mut(), SeqCst);
    }

    #[inline(never)]
    pub(super) fn low_tag_bit() {
        TAGGED.store(Box::into_raw(Box::new([1u64; 14])).expose_provenance() | 1, SeqCst);
    }

    #[inline(never)]
    pub(super) fn pointer_into_the_middle() {
        let block: *mut u8 = Box::into_raw(Box::new([1u8; 300])).cast();
        MIDDLE.store(block.wrapping_add(150), SeqCst);
    }

    #[inline(never)]
    pub(super) fn thread_local_of_a_live_thread(ready: &Barrier) {
        OF_LIVE.with(|cell| cell.set(Box::into_raw(Box::new([1; 108]))));
        overwrite_the_stack();
        ready.wait();
        wait_until_over();
        OF_LIVE.with(|cell| black_box(cell.as_ptr()));
    }

    #[inline(never)]
    pub(super) fn thread_local_of_an_ended_thread() {
        OF_ENDED.with(|cell| cell.set(Box::into_raw(Box::new([1; 109]))));
        OF_ENDED.with(|cell| black_box(cell.as_ptr()));
    }

    #[inline(never)]
    pub(super) fn local_of_main() -> Vec<Box<[u8; 110]>> {
        let mut boxes = Vec::with_capacity(4);
        for _ in 0..4 {
            boxes.push(Box::new([1; 110]));
        }
        boxes
    }

    #[inline(never)]
    pub(super) fn local_of_a_blocked_thread(ready: &Barrier) {
        let local = Box::new([1u8; 111]);
        ready.wait();
        wait_until_over();
        black_box(&local);
    }

    /// The thread has the address in a register and nowhere else.
    #[inline(never)]
    pub(super) fn only_in_a_register(ready: &Barrier) {
        let hidden = inverted_address();
        overwrite_the_stack();
        ready.wait();
        // SAFETY: this writes one byte of a static and reads one of another; the register is
        // inverted twice.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            asm!(
                "not {hidden}",
                "mov byte ptr [{is_in_register}], 1",
                "2:",
                "pause",
                "cmp byte ptr [{is_over}], 0",
                "je 2b",
                "not {hidden}",
                hidden = inout(reg) hidden => _,
                is_in_register = in(reg) IS_IN_REGISTER.as_ptr(),
                is_over = in(reg) IS_OVER.as_ptr(),
            );
            #[cfg(target_arch = "aarch64")]
            asm!(
                "mvn {hidden}, {hidden}",
                "mov {word:w}, 1",
                "strb {word:w}, [{is_in_register}]",
                "2:",
                "ldrb {word:w}, [{is_over}]",
                "cbz {word:w}, 2b",
                "mvn {hidden}, {hidden}",
                hidden = inout(reg) hidden => _,
                word = out(reg) _,
                is_in_register = in(reg) IS_IN_REGISTER.as_ptr(),
                is_over = in(reg) IS_OVER.as_ptr(),
            );
        }
    }

    #[inline(never)]
    fn inverted_address() -> usize {
        !black_box(Box::into_raw(Box::new([1u8; 112])).expose_provenance())
    }

    /// The queue of the channel is held by the sender in a static and by the receiver.
    #[inline(never)]
    pub(super) fn receiver_of_a_blocked_thread(ready: &Barrier) {
        let (sender, receiver): (Sender<Box<[u8; 113]>>, Receiver<_>) = channel();
        for _ in 0..5 {
            sender.send(Box::new([1; 113])).unwrap();
        }
        ready.wait();
        wait_until_over();
        black_box((&sender, &receiver));
    }

    type BothEnds<T> = (Sender<T>, Receiver<T>);

    /// Five boxes in the queue.
    #[inline(never)]
    pub(super) fn channel_of_main() -> BothEnds<Box<[u8; 114]>> {
        let (sender, receiver) = channel();
        for _ in 0..5 {
            sender.send(Box::new([1; 114])).unwrap();
        }
        (sender, receiver)
    }

    #[inline(never)]
    pub(super) fn only_in_c_memory() {
        let block = Box::into_raw(Box::new([1u8; 115])).expose_provenance();
        // SAFETY: the memory has room for an address.
        unsafe {
            let memory: *mut usize = libc::malloc(64).cast();
            memory.write(block);
            C_MEMORY.store(memory, SeqCst);
        }
    }

    /// Its value has no size, so the address is the one behind the two counts.
    #[inline(never)]
    pub(super) fn pointer_to_the_end() {
        END.store(Arc::into_raw(Arc::new(())).cast_mut(), SeqCst);
    }

    #[inline(never)]
    pub(super) fn only_in_a_mapping() {
        map_with(Box::into_raw(Box::new([1u8; 116])), 0, |_| 0);
    }

    #[inline(never)]
    pub(super) fn only_in_a_frozen_mapping() {
        let block = Box::into_raw(Box::new([1u8; 123]));
        // SAFETY: nobody writes to the mapping any more.
        map_with(block, 1, |memory| unsafe { libc::mprotect(memory, MAPPED, libc::PROT_READ) });
    }

    #[inline(never)]
    pub(super) fn only_in_a_hidden_mapping() {
        let block = Box::into_raw(Box::new([1u8; 124]));
        // SAFETY: nobody uses the mapping any more.
        map_with(block, 2, |memory| unsafe { libc::mprotect(memory, MAPPED, libc::PROT_NONE) });
    }

    #[inline(never)]
    pub(super) fn only_in_a_mapping_that_copies_lack() {
        let block = Box::into_raw(Box::new([1u8; 125]));
        // SAFETY: the advice is about copies of the process alone.
        map_with(block, 3, |memory| unsafe { libc::madvise(memory, MAPPED, libc::MADV_DONTFORK) });
    }

    #[inline(never)]
    pub(super) fn only_in_a_mapping_that_is_wiped_in_copies() {
        let block = Box::into_raw(Box::new([1u8; 126]));
        // SAFETY: the advice is about copies of the process alone.
        map_with(block, 4, |memory| unsafe { libc::madvise(memory, MAPPED, libc::MADV_WIPEONFORK) });
    }

    const MAPPED: usize = 1 << 16;

    /// Writes the address of a block into a new mapping, and then does something to the mapping.
    fn map_with<T>(block: *mut T, number: usize, then: impl FnOnce(*mut libc::c_void) -> i32) {
        // SAFETY: a new mapping disturbs nobody, and has room for an address.
        let memory = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let memory = libc::mmap(null_mut(), MAPPED, access, kind, -1, 0);
            memory.cast::<usize>().write(block.expose_provenance());
            memory
        };
        assert_eq!(then(memory), 0, "the system allows it");
        MAPPINGS[number].store(memory.cast(), SeqCst);
    }

    /// Seven boxes.
    #[inline(never)]
    pub(super) fn forgotten_box() {
        for _ in 0..7 {
            std::mem::forget(black_box(Box::new([1u8; 118])));
        }
    }

    struct Link {
        next: RefCell<Option<Rc<Link>>>,
        _room: [u8; 119],
    }

    /// A ring of 2,000 links.
    #[inline(never)]
    pub(super) fn rc_cycle() {
        let link = |next| Rc::new(Link { next: RefCell::new(next), _room: [1; 119] });
        let first = link(None);
        let mut last = Rc::clone(&first);
        for _ in 1..2000 {
            last = link(Some(last));
        }
        *first.next.borrow_mut() = Some(last);
    }

    /// Three blocks.
    #[inline(never)]
    pub(super) fn points_to_itself() {
        for _ in 0..3 {
            let block = Box::into_raw(Box::new([0usize; 15]));
            // SAFETY: the block is as large as its array.
            unsafe { (*block)[7] = block.expose_provenance() };
            black_box(block);
        }
    }

    /// A Vec of fifty pointers with its boxes.
    #[inline(never)]
    pub(super) fn forgotten_vec_of_boxes() {
        let mut boxes = Vec::with_capacity(50);
        for _ in 0..50 {
            boxes.push(Box::new([1u8; 121]));
        }
        std::mem::forget(black_box(boxes));
    }

    /// At a place that is no multiple of eight.
    #[inline(never)]
    pub(super) fn packed_pointer() {
        // SAFETY: no other thread uses the static, and the write is by value.
        unsafe { PACKED = Packed { tag: 2, pointer: Box::into_raw(Box::new([1; 117])) } };
    }

    /// The upper 16 bits of the address are in use for something else.
    #[inline(never)]
    pub(super) fn high_tag_bits() {
        let block = Box::into_raw(Box::new([1u8; 122])).expose_provenance();
        HIGH_TAG.store(block | 0xABCD << 48, SeqCst);
    }
}
