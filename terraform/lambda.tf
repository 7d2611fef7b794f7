# The function between the stream and the scorer, and how AWS hands records to it.

locals {
  api_key_secret = "mlops/api-key"
  endpoint       = local.modules[var.modules[0]]

  lambda_environment = {
    api = {
      API_URL        = "http://${aws_instance.core.private_ip}:8000"
      API_KEY_SECRET = local.api_key_secret
    }
    sagemaker = { ENDPOINT_NAME = local.endpoint }
  }
}

resource "aws_lambda_function" "stream" {
  # checkov:skip=CKV_AWS_115: the mapping makes one call a shard at a time; reserving more is refused by a young account, whose limit is 10
  # checkov:skip=CKV_AWS_272: the package is made here from one file, reproducibly, and its hash stands in the plan
  function_name    = "fraud-transactions"
  description      = "Decides the records of the stream through the API or the endpoint"
  role             = aws_iam_role.lambda.arn
  filename         = var.lambda_zip
  source_code_hash = filebase64sha256(var.lambda_zip)
  handler          = "lambda_handler.handler"
  runtime          = "python3.13"
  architectures    = ["arm64"]
  memory_size      = 256
  timeout          = 60
  kms_key_arn      = aws_kms_key.main.arn

  environment {
    variables = merge(
      { TARGET = var.lambda_target, DEAD_LETTERS = "s3://${aws_s3_bucket.data.bucket}" },
      local.lambda_environment[var.lambda_target],
    )
  }

  vpc_config {
    subnet_ids         = [aws_subnet.main.id]
    security_group_ids = [aws_security_group.lambda.id]
  }

  # For who calls it by hand without waiting; what comes from the stream goes to the bucket.
  dead_letter_config {
    target_arn = aws_sqs_queue.stream_dead.arn
  }

  tracing_config {
    mode = "PassThrough"
  }

  # Without the group Lambda would make one that is kept for ever; without the rights the mapping is refused.
  depends_on = [aws_cloudwatch_log_group.lambda, aws_iam_role_policy.lambda, aws_iam_role_policy_attachment.lambda_network]
}

resource "aws_cloudwatch_log_group" "lambda" {
  name              = "/aws/lambda/fraud-transactions"
  retention_in_days = 365
  kms_key_id        = aws_kms_key.main.arn
}

resource "aws_lambda_event_source_mapping" "stream" {
  enabled          = var.lambda_enabled
  event_source_arn = aws_kinesis_stream.transactions.arn
  function_name    = aws_lambda_function.stream.arn

  # What was decided before it was switched on is only repeated, and nothing is left out.
  starting_position                  = "TRIM_HORIZON"
  batch_size                         = 100
  maximum_batching_window_in_seconds = 1

  # One card's transactions stay in order.
  parallelization_factor = 1

  # Without it every answer of the function counts as a success, and a failure is lost.
  function_response_types        = ["ReportBatchItemFailures"]
  bisect_batch_on_function_error = true

  # A try lasts up to a minute. AWS would go on until the stream forgets, and one record would hold its shard.
  maximum_record_age_in_seconds = var.outage_hours * 3600
  maximum_retry_attempts        = var.outage_hours * 60

  # A queue or a topic would be told only where the records were; a bucket gets the records.
  destination_config {
    on_failure {
      destination_arn = aws_s3_bucket.data.arn
    }
  }
}
