<?php
namespace App;

/** Steps of several services: all of them are done, or what was done is undone in reverse. */
class Saga
{
    /**
     * What undoes a step may be asked twice, and before the step: that is refused then. So a step of which nobody knows is undone too.
     * @param array<array{callable, callable}> $steps what each does, and what undoes it
     */
    public static function run(array $steps): void
    {
        foreach ($steps as $number => [$do]) {
            try {
                $do();
            } catch (Failure $e) {
                try {
                    self::undo(array_slice($steps, 0, $number + 1));
                } catch (Failure $again) {
                    error_log('left to recover.php: ' . $again->getMessage());
                }
                throw $e;
            }
        }
    }

    public static function undo(array $steps): void
    {
        foreach (array_reverse($steps) as [, $undo]) {
            $undo();
        }
    }
}
