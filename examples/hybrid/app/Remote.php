<?php
namespace App;

use Redis;
use RedisException;

/** Redis: events for whoever reads them, and what is remembered of other services. Without it both are missing, and nothing fails. */
class Remote
{
    private static ?Redis $redis = null;

    /** A stream of its own for each topic, of the last 10,000. */
    public static function publish(string $topic, array $payload): void
    {
        self::try(fn (Redis $redis) => $redis->xAdd($topic, '*', ['payload' => json_encode($payload)], 10_000, true));
    }

    public static function remember(string $key, string $value): void
    {
        self::try(fn (Redis $redis) => $redis->setex($key, 86_400, $value));
    }

    public static function remembered(string $key): ?string
    {
        return self::try(fn (Redis $redis) => $redis->get($key)) ?: null;
    }

    private static function try(callable $use): mixed
    {
        try {
            if (!self::$redis) {
                $redis = new Redis();
                if (!@$redis->connect(getenv('REDIS_HOST') ?: '127.0.0.1', (int) getenv('REDIS_PORT') ?: 6379, 1.0)) {
                    throw new RedisException('no connection');
                }
                self::$redis = $redis;
            }

            return $use(self::$redis);
        } catch (RedisException $e) {
            error_log('Redis: ' . $e->getMessage());

            return null;
        }
    }
}
