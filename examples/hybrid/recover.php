<?php
// Undoes the sagas that an instance has left when it ended, or could not undo itself. Every instance looks for them.

use App\Failure;

$service = (require __DIR__ . '/app/bootstrap.php')->service('order.OrderService');
for (;;) {
    sleep(1);
    try {
        $service->recover();
    } catch (Failure $e) {
        error_log('recover: ' . $e->getMessage());
    }
}
