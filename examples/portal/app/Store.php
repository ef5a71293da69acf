<?php
namespace App;

use PDO;
use Redis;
use RedisException;

/** A service's own tables, which all its instances share, and the cache in front of them. */
class Store
{
    private static ?PDO $database = null;
    private static ?Redis $redis = null;

    public static function database(): PDO
    {
        if (!self::$database) {
            $file = (getenv('DB_DATABASE') ?: getenv('DATA') . '/' . getenv('APP_NAME') . '.sqlite');
            self::$database = new PDO("sqlite:$file", null, null, [
                PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
                PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
                PDO::ATTR_TIMEOUT => 5,
            ]);
            self::$database->exec('pragma journal_mode = wal; pragma foreign_keys = on');
        }

        return self::$database;
    }

    public static function redis(): Redis
    {
        if (!self::$redis) {
            $redis = new Redis();
            if (!@$redis->connect(getenv('REDIS_HOST'), (int) getenv('REDIS_PORT') ?: 6379, 1.0)) {
                throw new RedisException('no connection');
            }
            self::$redis = $redis;
        }

        return self::$redis;
    }

    /** Rows of a query. */
    public static function all(string $sql, array $values = []): array
    {
        $statement = self::database()->prepare($sql);
        $statement->execute($values);

        return $statement->fetchAll();
    }

    /** The first row, or null. */
    public static function one(string $sql, array $values = []): ?array
    {
        return self::all($sql, $values)[0] ?? null;
    }

    /** What is written, or not at all. */
    public static function together(callable $write): mixed
    {
        $database = self::database();
        $database->exec('begin immediate');
        try {
            $made = $write($database);
            $database->exec('commit');

            return $made;
        } catch (\Throwable $e) {
            $database->exec('rollback');
            throw $e;
        }
    }

    /** A row from the cache, or else from the table. Without Redis it is slower, and no worse. */
    public static function remembered(string $key, callable $read): ?array
    {
        try {
            $kept = self::redis()->get($key);
            if ($kept !== false) {
                return json_decode($kept, true);
            }
            $row = $read();
            if ($row) {
                self::redis()->setex($key, 30, json_encode($row));
            }

            return $row;
        } catch (RedisException) {
            return $read();
        }
    }

    public static function forget(string $key): void
    {
        try {
            self::redis()->del($key);
        } catch (RedisException) {
            // It is over in 30 s by itself.
        }
    }
}
