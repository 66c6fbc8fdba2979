//! The threads that run kernels: owned by one rayon pool, woken once a frame, fed tile by tile.
//!
//! rayon's own fork-join wakes its workers anew for every layer, which costs 24–65 µs after a gap of
//! 200 µs; a frame has some 60 layers of 20–500 µs. So each worker of the pool runs one long job,
//! `Shared::serve`, for the whole life of the [`Team`]: within a frame it spins for the next layer
//! (0.2 µs), between frames it sleeps on a condition variable and costs nothing.
//!
//! - No allocation after [`Team::new`]: a layer's job is two pointers in a slot.
//! - A layer is never held up by a thread that the system has not scheduled: only threads that joined
//!   it are waited for, and those compute.
//! - Every wait spins for a bounded time, then yields, then sleeps.
//! - A panic in a job reaches the caller of [`Crew::for_each`], after all threads left the job.
//!
//! Test: `kernels::team::tests`.

use std::any::Any;
use std::cell::{RefCell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::schedule::Schedule;

/// How long a waiting thread spins before it yields (within a frame) or sleeps (between frames).
const SPIN: Duration = Duration::from_micros(50);
/// How long a waiting worker spins and yields within a frame before it sleeps.
const PATIENCE: Duration = Duration::from_millis(2);
/// Tries between two looks at the clock.
const TRIES: u32 = 64;

/// `state`: the job may be joined.
const OPEN: u64 = 1 << 31;
/// `state`: how many workers are in the job.
const ACTIVE: u64 = OPEN - 1;

/// What a layer asks for: `call(body, index, lane)` for each index below `count`.
#[derive(Clone, Copy)]
struct Job {
    body: *const (),
    call: unsafe fn(*const (), usize, usize),
    count: usize,
}

/// Calls `body` as the `F` that it is.
///
/// # Safety
/// - `body` points to a live `F`.
unsafe fn call<F: Fn(usize, usize) + Sync>(body: *const (), index: usize, lane: usize) {
    // SAFETY: the caller's duty.
    let body = unsafe { &*body.cast::<F>() };
    body(index, lane);
}

struct Shared {
    /// Generation of the job in the upper half, then [`OPEN`], then the count of [`ACTIVE`] workers.
    state: AtomicU64,
    /// The next index to claim.
    next: AtomicUsize,
    /// Written by the leader while the job is not open and no worker is active; read by active workers.
    job: UnsafeCell<Job>,
    /// The first panic of a worker.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Counts frames, so that sleepers see that one began.
    frames: AtomicU32,
    in_frame: AtomicBool,
    shutdown: AtomicBool,
    /// Workers that began to serve.
    serving: AtomicUsize,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is the only part that is not `Sync` by itself; `Shared::publish` and `Shared::join`
// say when it is written and read, and its pointer is to a `Sync` closure.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new() -> Self {
        /// Stands in the slot until the first job.
        unsafe fn nothing(_: *const (), _: usize, _: usize) {}
        Self {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { body: std::ptr::null(), call: nothing, count: 0 }),
            panic: Mutex::new(None),
            frames: AtomicU32::new(0),
            in_frame: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            serving: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Opens `job` to the workers.
    ///
    /// # Safety
    /// - Only the leader calls it, and the job before was closed with [`Shared::close`].
    /// - `job.body` lives until [`Shared::close`] returns.
    unsafe fn publish(&self, job: Job) {
        // SAFETY: the last job is closed, so no worker is active and none can join: nobody reads.
        unsafe { *self.job.get() = job };
        self.next.store(0, Ordering::Relaxed);
        let generation = (self.state.load(Ordering::Relaxed) >> 32).wrapping_add(1) as u32;
        self.state.store(u64::from(generation) << 32 | OPEN, Ordering::SeqCst);
        self.rouse();
    }

    /// Shuts the job and waits for the workers in it.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut began = None;
        let mut tries = 0u32;
        while self.state.load(Ordering::Acquire) & ACTIVE != 0 {
            std::hint::spin_loop();
            tries += 1;
            if tries.is_multiple_of(TRIES) {
                match began.get_or_insert_with(Instant::now).elapsed() {
                    waited if waited > PATIENCE => std::thread::sleep(SPIN),
                    waited if waited > SPIN => std::thread::yield_now(),
                    _ => {}
                }
            }
        }
    }

    /// Wakes whoever sleeps. What they look for was stored `SeqCst` before.
    fn rouse(&self) {
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            let _bed = lock(&self.bed);
            self.wake.notify_all();
        }
    }

    /// Claims indices until none is left. A panic ends the job for everyone and is returned.
    fn work(&self, job: Job, lane: usize) -> Result<(), Box<dyn Any + Send>> {
        let done = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                if index >= job.count {
                    break;
                }
                // SAFETY: the job is not closed as long as this thread is in it (the leader itself,
                // or a worker that counts as active), so the closure lives; `call` fits it.
                unsafe { (job.call)(job.body, index, lane) };
            }
        }));
        if done.is_err() {
            self.next.store(job.count, Ordering::Relaxed);
        }
        done
    }

    /// Becomes an active worker of an open job whose generation is not `seen`.
    fn join(&self, seen: u32) -> Option<u32> {
        let mut state = self.state.load(Ordering::SeqCst);
        while state & OPEN != 0 && (state >> 32) as u32 != seen {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Some((state >> 32) as u32),
                Err(now) => state = now,
            }
        }
        None
    }

    /// A worker's life.
    fn serve(&self, lane: usize) {
        self.serving.fetch_add(1, Ordering::Relaxed);
        let mut seen = 0;
        while let Some(generation) = self.await_job(seen) {
            seen = generation;
            // SAFETY: this worker is active, so the leader does not write the slot.
            let job = unsafe { *self.job.get() };
            if let Err(payload) = self.work(job, lane) {
                lock(&self.panic).get_or_insert(payload);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a job and joins it; `None` when the team is dropped.
    fn await_job(&self, seen: u32) -> Option<u32> {
        loop {
            let began = Instant::now();
            loop {
                for _ in 0..TRIES {
                    if let Some(generation) = self.join(seen) {
                        return Some(generation);
                    }
                    std::hint::spin_loop();
                }
                if self.shutdown.load(Ordering::SeqCst) {
                    return None;
                }
                let waited = began.elapsed();
                if waited > SPIN {
                    if !self.in_frame.load(Ordering::Relaxed) || waited > PATIENCE {
                        break;
                    }
                    std::thread::yield_now();
                }
            }
            self.sleep(seen);
        }
    }

    /// Sleeps until a job opens, a frame begins, or the team is dropped.
    fn sleep(&self, seen: u32) {
        let mut bed = lock(&self.bed);
        let frames = self.frames.load(Ordering::SeqCst);
        // Whoever stores what is looked at below reads `sleepers` afterwards: one of the two sees the other.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if state & OPEN != 0 && (state >> 32) as u32 != seen
                || self.frames.load(Ordering::SeqCst) != frames
                || self.shutdown.load(Ordering::SeqCst)
            {
                break;
            }
            bed = self.wake.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Threads that run kernels. One frame at a time is run on it.
#[derive(Debug)]
pub struct Team {
    shared: Option<Arc<Shared>>,
    /// Owns the threads; dropped after `shutdown` is set.
    _pool: Option<rayon::ThreadPool>,
    threads: usize,
    /// The threads are only reckoned with: what the last frame would have taken.
    reckoned: Option<Duration>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Team {
    /// A team of `threads`, the calling thread included; 0 counts as 1, and 1 starts no thread. Fewer where rayon starts
    /// no more (65,535).
    pub fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let threads = threads.max(1);
        if threads == 1 {
            return Ok(Self { shared: None, _pool: None, threads, reckoned: None });
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads - 1)
            .thread_name(|worker| format!("kernel-{}", worker + 1))
            .build()?;
        let workers = pool.current_num_threads();
        let shared = Arc::new(Shared::new());
        let served = Arc::clone(&shared);
        pool.spawn_broadcast(move |worker| served.serve(worker.index() + 1));
        // A thread allocates while it starts: not during someone's frame.
        while shared.serving.load(Ordering::Relaxed) < workers {
            std::thread::sleep(SPIN);
        }
        Ok(Self { shared: Some(shared), _pool: Some(pool), threads: workers + 1, reckoned: None })
    }

    /// A team that computes on the calling thread alone, split as for `threads`, and reckons what those would
    /// take: [`Team::reckoned`].
    pub fn reckoning(threads: usize) -> Self {
        Self { shared: None, _pool: None, threads: threads.max(1), reckoned: Some(Duration::ZERO) }
    }

    /// What the last frame would have taken on the threads of a team that is [`Team::reckoning`].
    pub fn reckoned(&self) -> Option<Duration> {
        self.reckoned
    }

    /// Threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Wakes the threads and runs `f`, which hands them work through the [`Crew`].
    pub fn frame<R>(&mut self, f: impl FnOnce(&Crew<'_>) -> R) -> R {
        struct Frame<'a>(&'a Shared);
        impl Drop for Frame<'_> {
            fn drop(&mut self) {
                self.0.in_frame.store(false, Ordering::Relaxed);
            }
        }
        let shared = self.shared.as_deref();
        let _frame = shared.map(|shared| {
            shared.in_frame.store(true, Ordering::Relaxed);
            shared.frames.fetch_add(1, Ordering::SeqCst);
            shared.rouse();
            Frame(shared)
        });
        let schedule = self.reckoned.map(|_| RefCell::new(Schedule::new(self.threads)));
        let began = Instant::now();
        let done =
            f(&Crew { shared, threads: self.threads, schedule: schedule.as_ref(), _one_thread: PhantomData });
        self.reckoned = schedule.map(|schedule| schedule.into_inner().time(began.elapsed()));
        done
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.shutdown.store(true, Ordering::SeqCst);
            shared.rouse();
        }
    }
}

/// A team within a frame. It stays on the leading thread (neither `Send` nor `Sync`), so jobs do not nest.
#[derive(Debug)]
pub struct Crew<'t> {
    shared: Option<&'t Shared>,
    threads: usize,
    schedule: Option<&'t RefCell<Schedule>>,
    _one_thread: PhantomData<*const ()>,
}

impl Crew<'_> {
    /// Lanes that [`Crew::for_each`] numbers: threads, the calling one included.
    pub fn lanes(&self) -> usize {
        self.threads
    }

    /// Calls `body(index, lane)` once for each index below `count`, on all threads, and returns when all
    /// are done. `lane` is below [`Crew::lanes`] and belongs to one thread for the time of the job.
    pub fn for_each<F: Fn(usize, usize) + Sync>(&self, count: usize, body: &F) {
        if let Some(schedule) = self.schedule {
            // Jobs do not nest.
            return schedule.borrow_mut().run(count, body);
        }
        let shared = match self.shared {
            Some(shared) if count > 1 => shared,
            _ => return (0..count).for_each(|index| body(index, 0)),
        };
        let job = Job { body: std::ptr::from_ref(body).cast(), call: call::<F>, count };
        // SAFETY: a `Crew` stays on the one thread that called `Team::frame` with `&mut Team`, and jobs
        // do not nest, so this is the leader; every job is closed below, before `body`'s borrow ends.
        unsafe { shared.publish(job) };
        let own = shared.work(job, 0);
        shared.close();
        let theirs = lock(&shared.panic).take();
        if let Some(payload) = own.err().or(theirs) {
            resume_unwind(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums_on(threads: usize, jobs: usize) {
        let mut team = Team::new(threads).expect("threads");
        let mut out = vec![0u32; 97];
        for frame in 0..3 {
            team.frame(|crew| {
                for job in 0..jobs {
                    let cells: Vec<AtomicU32> = out.iter().map(|&v| AtomicU32::new(v)).collect();
                    crew.for_each(cells.len(), &|index, lane| {
                        assert!(lane < threads.max(1));
                        cells[index].fetch_add(index as u32, Ordering::Relaxed);
                    });
                    out = cells.into_iter().map(AtomicU32::into_inner).collect();
                    assert!(out.iter().enumerate().all(|(i, &v)| v as usize == i * (frame * jobs + job + 1)));
                }
            });
        }
    }

    #[test]
    fn each_index_runs_once() {
        sums_on(0, 5);
        sums_on(1, 5);
        sums_on(2, 500);
        sums_on(17, 100);
    }

    #[test]
    fn sleeping_workers_wake_for_a_late_job() {
        let mut team = Team::new(3).expect("threads");
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(5));
            team.frame(|crew| {
                std::thread::sleep(2 * PATIENCE);
                let lanes = Mutex::new(std::collections::HashSet::new());
                crew.for_each(64, &|_, lane| {
                    lock(&lanes).insert(lane);
                    std::thread::sleep(Duration::from_micros(500));
                });
                assert!(lock(&lanes).len() > 1, "no worker came");
            });
        }
    }

    #[test]
    fn lanes_are_not_shared() {
        let mut team = Team::new(8).expect("threads");
        let busy: Vec<AtomicBool> = (0..8).map(|_| AtomicBool::new(false)).collect();
        team.frame(|crew| {
            crew.for_each(2000, &|_, lane| {
                assert!(!busy[lane].swap(true, Ordering::SeqCst));
                std::thread::yield_now();
                busy[lane].store(false, Ordering::SeqCst);
            })
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        for threads in [1, 2, 6] {
            let mut team = Team::new(threads).expect("threads");
            for bad in [0, 3, 99] {
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    team.frame(|crew| {
                        crew.for_each(100, &|index, _| {
                            std::thread::yield_now();
                            assert!(index != bad, "tile {bad}");
                        })
                    })
                }));
                let payload = caught.expect_err("must panic");
                assert_eq!(
                    payload.downcast_ref::<String>().map(String::as_str),
                    Some(&*format!("tile {bad}"))
                );
            }
            let count = AtomicUsize::new(0);
            team.frame(|crew| crew.for_each(100, &|_, _| _ = count.fetch_add(1, Ordering::Relaxed)));
            assert_eq!(count.into_inner(), 100);
        }
    }

    #[test]
    fn a_job_inside_a_job_on_another_team() {
        let count = AtomicUsize::new(0);
        let mut outer = Team::new(3).expect("threads");
        outer.frame(|crew| {
            crew.for_each(4, &|_, _| {
                let mut inner = Team::new(2).expect("threads");
                inner.frame(|crew| crew.for_each(10, &|_, _| _ = count.fetch_add(1, Ordering::Relaxed)));
            })
        });
        assert_eq!(count.into_inner(), 40);
    }

    #[test]
    fn a_reckoning_team_computes_all_and_tells_its_time() {
        let mut team = Team::reckoning(4);
        assert_eq!((team.threads(), team.reckoned()), (4, Some(Duration::ZERO)));
        let began = Instant::now();
        let sum = team.frame(|crew| {
            assert_eq!(crew.lanes(), 4);
            let sum = AtomicUsize::new(0);
            crew.for_each(8, &|index, lane| {
                assert!(lane < 4);
                std::thread::sleep(Duration::from_millis(2));
                sum.fetch_add(index, Ordering::Relaxed);
            });
            sum.into_inner()
        });
        assert_eq!(sum, 28);
        let reckoned = team.reckoned().expect("reckons");
        assert!(reckoned >= Duration::from_millis(4) && reckoned < began.elapsed(), "{reckoned:?}");
        assert_eq!(Team::new(1).expect("no thread").reckoned(), None);
    }

    #[test]
    fn nothing_to_do_is_fine() {
        Team::new(4).expect("threads").frame(|crew| crew.for_each(0, &|_, _| unreachable!()));
    }
}
