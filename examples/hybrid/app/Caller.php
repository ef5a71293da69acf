<?php
namespace App;

/** Who asks, as the gateway says; without it another service does. Nobody but the gateway and services can call this one. */
class Caller
{
    public static function user(): ?int
    {
        return isset($_SERVER['HTTP_X_USER_ID']) ? (int) $_SERVER['HTTP_X_USER_ID'] : null;
    }

    /** Whether this user's things may be seen and changed. */
    public static function is(int $user): bool
    {
        return self::user() === null || self::user() === $user || ($_SERVER['HTTP_X_USER_ROLE'] ?? '') === 'admin';
    }
}
