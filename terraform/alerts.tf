# Who is told: the topic, the queue that retraining listens to, alarms, and the daily look at drift.

resource "aws_sns_topic" "alerts" {
  name              = "mlops-alerts"
  kms_master_key_id = aws_kms_key.main.arn
}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "Alarms"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alerts.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_sns_topic_policy" "alerts" {
  arn    = aws_sns_topic.alerts.arn
  policy = data.aws_iam_policy_document.topic.json
}

resource "aws_sns_topic_subscription" "people" {
  count = var.alert_email == null ? 0 : 1

  topic_arn = aws_sns_topic.alerts.arn
  protocol  = "email"
  endpoint  = var.alert_email
}

# What the platform says itself has a module's name. Alarms, of CloudWatch or Prometheus, have none: the worker could not
# read them, and they would come back until they are dead letters.
resource "aws_sns_topic_subscription" "inbox" {
  topic_arn     = aws_sns_topic.alerts.arn
  protocol      = "sqs"
  endpoint      = aws_sqs_queue.inbox.arn
  filter_policy = jsonencode({ name = var.modules })
}

resource "aws_sqs_queue" "inbox" {
  name                      = "mlops-alerts"
  message_retention_seconds = 1209600
  # Longer than a retraining takes, so that nobody else begins it too.
  visibility_timeout_seconds = 3600
  receive_wait_time_seconds  = 20
  sqs_managed_sse_enabled    = true
  policy                     = data.aws_iam_policy_document.inbox.json

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.inbox_dead.arn
    maxReceiveCount     = 5
  })
}

resource "aws_sqs_queue" "inbox_dead" {
  name                      = "mlops-alerts-dead-letters"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

data "aws_iam_policy_document" "inbox" {
  statement {
    sid       = "TheTopicAlone"
    actions   = ["sqs:SendMessage"]
    resources = ["${local.queues}:mlops-alerts"]

    principals {
      type        = "Service"
      identifiers = ["sns.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_sns_topic.alerts.arn]
    }
  }
}

locals {
  alarms = {
    "stream-function-fails" = {
      text      = "The function between the stream and the scorer failed as a whole; its log says why"
      namespace = "AWS/Lambda", metric = "Errors", statistic = "Sum", above = 0, minutes = 5
      of        = { FunctionName = aws_lambda_function.stream.function_name }
    }
    "stream-is-behind" = {
      text      = "The oldest record that nobody has read is older than five minutes; is a worker or Lambda running?"
      namespace = "AWS/Kinesis", metric = "GetRecords.IteratorAgeMilliseconds", statistic = "Maximum", above = 300000, minutes = 5
      of        = { StreamName = aws_kinesis_stream.transactions.name }
    }
    "stream-dead-letters" = {
      text      = "Records were not decided; they lie in the bucket: python -m modules.fraud_detection replay-dlq --list"
      namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", statistic = "Maximum", above = 0, minutes = 5
      of        = { QueueName = aws_sqs_queue.stream_dead.name }
    }
    "alerts-dead-letters" = {
      text      = "An alert was received five times and not handled; the scheduler's log says why"
      namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", statistic = "Maximum", above = 0, minutes = 5
      of        = { QueueName = aws_sqs_queue.inbox_dead.name }
    }
    "node-fails" = {
      text      = "The machine mlops-core does not pass EC2's checks"
      namespace = "AWS/EC2", metric = "StatusCheckFailed", statistic = "Maximum", above = 0, minutes = 2
      of        = { InstanceId = aws_instance.core.id }
    }
  }

  # The kinds of alerts that the platform raises by itself.
  kinds           = ["drift", "failed run", "failures", "latency", "rollback"]
  platform_alerts = { for pair in setproduct(var.modules, local.kinds) : replace("${pair[0]}-${pair[1]}", "/[ _]/", "-") => pair }
}

resource "aws_cloudwatch_metric_alarm" "service" {
  for_each = local.alarms

  alarm_name          = "mlops-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.of
  statistic           = each.value.statistic
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  period              = 60
  evaluation_periods  = each.value.minutes
  # A function or a queue that nobody uses tells nothing; a machine that tells nothing is ill.
  treat_missing_data  = each.key == "node-fails" ? "breaching" : "notBreaching"
  datapoints_to_alarm = each.value.above == 0 && each.key != "node-fails" ? 1 : each.value.minutes
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

# The platform puts 1 when an alert is raised and 0 when it is cleared, and nothing in between: the state stays.
resource "aws_cloudwatch_metric_alarm" "platform" {
  for_each = local.platform_alerts

  alarm_name          = "mlops-${each.key}"
  alarm_description   = "${each.value[0]} has raised '${each.value[1]}'; its message on the topic says more"
  namespace           = local.namespace
  metric_name         = "alerts"
  dimensions          = { module = each.value[0], kind = each.value[1] }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "ignore"
  alarm_actions       = [aws_sns_topic.alerts.arn]
}

# The scheduler on the node checks for drift by itself, every day at 02:00. Half an hour later this makes sure of it:
# a check that was made is not made twice, one that a dead scheduler missed is made now.
resource "aws_scheduler_schedule" "drift_check" {
  name                         = "mlops-drift-check"
  description                  = "The daily check for drift, where the node's own scheduler has not made it"
  schedule_expression          = "cron(30 2 * * ? *)"
  schedule_expression_timezone = "UTC"
  kms_key_arn                  = aws_kms_key.main.arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:${local.aws}:scheduler:::aws-sdk:ssm:sendCommand"
    role_arn = aws_iam_role.scheduler.arn
    input = jsonencode({
      DocumentName = aws_ssm_document.drift_check.name
      InstanceIds  = [aws_instance.core.id]
    })

    retry_policy {
      maximum_event_age_in_seconds = 3600
      maximum_retry_attempts       = 10
    }
  }
}

# A document without parameters: who may send it can make the node do this, and no word more.
resource "aws_ssm_document" "drift_check" {
  name            = "mlops-drift-check"
  document_type   = "Command"
  document_format = "JSON"
  content = jsonencode({
    schemaVersion = "2.2"
    description   = "Do what the scheduler of mlops-platform would do now"
    mainSteps = [{
      action = "aws:runShellScript"
      name   = "check"
      inputs = {
        timeoutSeconds   = "3600"
        workingDirectory = "/opt/mlops-platform"
        runCommand       = ["docker compose --env-file .env -f infra/compose.yaml run --rm -T --entrypoint python scheduler -m monitoring.drift_report_scheduler --once"]
      }
    }]
  })
}
