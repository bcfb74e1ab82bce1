//! A tokio runtime with several threads: tasks that move between the threads, blocking work and
//! timers.

use std::hint::black_box;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const TASKS: usize = 300;

pub(crate) fn stunt() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let sum: usize = runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS).map(|number| tokio::spawn(task(number))).collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap();
        }
        sum
    });
    assert_eq!(sum, TASKS * 10);
    // The runtime's threads end here, before the counting allocator is read.
    drop(runtime);
}

async fn task(number: usize) -> usize {
    let (sender, mut receiver) = mpsc::channel(2);
    let feeder = tokio::spawn(async move {
        for n in 0..10 {
            sender.send(black_box(vec![n; 1 + number % 50])).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut received = 0;
    while let Some(list) = receiver.recv().await {
        received += usize::from(!nested(list.len() % 7).await.is_empty());
    }
    feeder.await.unwrap();
    let blocking = tokio::task::spawn_blocking(move || format!("{number}").repeat(20));
    assert!(!blocking.await.unwrap().is_empty());
    sleep(Duration::from_millis(number as u64 % 5)).await;
    assert!(timeout(Duration::from_millis(1), std::future::pending::<()>()).await.is_err());
    received
}

async fn nested(depth: usize) -> String {
    if depth == 0 {
        tokio::task::yield_now().await;
        return "bottom".to_owned();
    }
    Box::pin(nested(depth - 1)).await + "."
}
