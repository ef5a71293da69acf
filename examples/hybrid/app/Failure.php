<?php
namespace App;

use RuntimeException;

/** A call that ends with another status than OK: its code is gRPC's, its message is for the caller. */
class Failure extends RuntimeException
{
    public const INVALID_ARGUMENT = 3;
    public const NOT_FOUND = 5;
    public const ALREADY_EXISTS = 6;
    public const PERMISSION_DENIED = 7;
    public const FAILED_PRECONDITION = 9;
    public const UNIMPLEMENTED = 12;
    public const INTERNAL = 13;
    public const UNAVAILABLE = 14;

    public function __construct(string $message, int $code)
    {
        parent::__construct($message, $code);
    }
}
