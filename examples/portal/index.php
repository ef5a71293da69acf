<?php
require __DIR__ . '/app/functions.php';
(require __DIR__ . '/app/bootstrap.php')->run();
