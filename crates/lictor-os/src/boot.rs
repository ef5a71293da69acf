//! The clock that goes on while the machine is suspended (CLOCK_BOOTTIME), and alarms by it.
//!
//! `Instant` is CLOCK_MONOTONIC on Linux, which stands still meanwhile, and so do all timers of tokio. What others end by
//! their own clocks, such as a lock, is over when it is over there, whether this machine ran or not. No clock of a virtual
//! machine knows that the machine was paused.

use std::io;
use std::ops::Add;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// When something was or will be, since the machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

/// Rings at a moment; when the machine was suspended then, as soon as it goes on.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    at: Moment,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default()))
    }

    /// How long ago it was.
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }

    /// How long it is until then.
    pub fn left(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }

    /// It is now, or was before.
    pub fn is_over(self) -> bool {
        Self::now() >= self
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self(self.0.saturating_add(more))
    }
}

impl Alarm {
    /// One for this moment. An error is that this process has no descriptors left.
    pub fn at(at: Moment) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        #[expect(deprecated, reason = "for what is no descriptor of its own; this one is, and nothing here is unsafe")]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        let mut alarm = Self { timer, at };
        alarm.set(at)?;
        Ok(alarm)
    }

    /// Another moment.
    pub fn set(&mut self, at: Moment) -> io::Result<()> {
        self.at = at;
        // Nothing at all would switch it off.
        let at = at.0.max(Duration::from_nanos(1));
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec { tv_sec: at.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: at.subsec_nanos().into() };
        let timer = Itimerspec { it_interval: once, it_value: at };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &timer)?;
        Ok(())
    }

    /// Until then; at once, when that was before.
    pub async fn rings(&self) {
        while !self.at.is_over() {
            let Ok(mut ready) = self.timer.readable().await else { return };
            // It may have rung for a moment that was set before: then this takes that away.
            let _ = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0_u8; 8])?));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_though_the_clock_of_the_runtime_stands_still() {
        // While somebody is blocked the clock stays where it is, as it does while a machine is suspended.
        let (stop, stopped) = mpsc::channel::<()>();
        let blocked = tokio::task::spawn_blocking(move || stopped.recv());
        let (began, by_runtime) = (Moment::now(), tokio::time::Instant::now());
        Alarm::at(began + SHORT).unwrap().rings().await;
        assert!(began.elapsed() >= SHORT, "{:?}", began.elapsed());
        assert_eq!(by_runtime.elapsed(), Duration::ZERO);
        drop(stop);
        assert!(blocked.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn an_alarm_that_is_set_again_rings_then_and_not_before() {
        let mut alarm = Alarm::at(Moment::now() + SHORT).unwrap();
        alarm.rings().await;
        alarm.rings().await;
        for _ in 0..3 {
            let next = Moment::now() + SHORT;
            alarm.set(next).unwrap();
            alarm.rings().await;
            assert!(next.is_over() && next.left() == Duration::ZERO);
        }
        alarm.set(Moment(Duration::ZERO)).unwrap();
        alarm.rings().await;
        alarm.set(Moment::now() + Duration::MAX).unwrap();
    }

    #[tokio::test]
    async fn it_is_put_off_before_it_rings() {
        let mut alarm = Alarm::at(Moment::now() + SHORT).unwrap();
        let far = Moment::now() + Duration::from_secs(3600);
        alarm.set(far).unwrap();
        let other = Alarm::at(Moment::now() + SHORT * 2).unwrap();
        tokio::select! {
            biased;
            () = alarm.rings() => panic!("it was put off"),
            () = other.rings() => (),
        }
        assert!(far.left() > Duration::from_secs(3500));
    }
}
