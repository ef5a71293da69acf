<?php
namespace App;

use Exception;
use Google\Protobuf\Internal\Message;

/** A message as gRPC carries it: a byte that says whether it is compressed, four of its length, and itself. */
class Frame
{
    public static function of(Message $message): string
    {
        $bytes = $message->serializeToString();

        return pack('CN', 0, strlen($bytes)) . $bytes;
    }

    public static function read(string $frame, string $kind): Message
    {
        $head = strlen($frame) < 5 ? null : unpack('Ccompressed/Nlength', $frame);
        if (!$head || $head['length'] !== strlen($frame) - 5) {
            throw new Failure('One message was expected', Failure::INTERNAL);
        }
        if ($head['compressed']) {
            throw new Failure('Messages are not compressed here', Failure::UNIMPLEMENTED);
        }
        $message = new $kind();
        try {
            $message->mergeFromString(substr($frame, 5));
        } catch (Exception) {
            throw new Failure("This is no $kind", Failure::INVALID_ARGUMENT);
        }

        return $message;
    }
}
