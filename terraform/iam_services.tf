# What the function, SageMaker, the schedule and the flow log may do.

resource "aws_iam_role" "lambda" {
  name               = "mlops-lambda"
  description        = "The function between the stream and the scorer"
  assume_role_policy = data.aws_iam_policy_document.trust["lambda"].json
}

resource "aws_iam_role_policy" "lambda" {
  name   = "stream"
  role   = aws_iam_role.lambda.id
  policy = data.aws_iam_policy_document.lambda.json
}

# AWS checks a function in a network for just these rights, on every resource.
resource "aws_iam_role_policy_attachment" "lambda_network" {
  role       = aws_iam_role.lambda.name
  policy_arn = "arn:${local.aws}:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
}

data "aws_iam_policy_document" "lambda" {
  statement {
    sid = "Stream"
    actions = [
      "kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator",
      "kinesis:ListShards",
    ]
    resources = [aws_kinesis_stream.transactions.arn]
  }

  # It knows no narrower word, and gives names alone.
  statement {
    sid       = "Streams"
    actions   = ["kinesis:ListStreams"]
    resources = ["*"]
  }

  statement {
    sid       = "DeadLetters"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.data.arn}/monitoring/dead_letters/*", "${aws_s3_bucket.data.arn}/aws/lambda/*"]
  }

  # AWS asks for it before it puts undecided batches there.
  statement {
    sid       = "FindTheBucket"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.data.arn]
  }

  statement {
    sid       = "Notes"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.stream_dead.arn]
  }

  statement {
    sid       = "ApiKey"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.this[local.api_key_secret].arn]
  }

  statement {
    sid       = "Endpoint"
    actions   = ["sagemaker:InvokeEndpoint"]
    resources = ["arn:${local.aws}:sagemaker:${var.region}:${local.account}:endpoint/${local.endpoint}"]
  }

  statement {
    sid       = "TheKeyOfAllThat"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.main.arn]
  }

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.lambda.arn}:*"]
  }

  # The rights of the network are for AWS itself, and not for the code.
  statement {
    sid       = "TheCodeMakesNoInterface"
    effect    = "Deny"
    actions   = ["ec2:*NetworkInterface*", "ec2:*PrivateIpAddresses"]
    resources = ["*"]

    condition {
      test     = "ArnLike"
      variable = "lambda:SourceFunctionArn"
      values   = ["arn:${local.aws}:lambda:${var.region}:${local.account}:function:fraud-transactions"]
    }
  }
}

resource "aws_iam_role" "sagemaker" {
  name               = "mlops-sagemaker"
  description        = "Training jobs, endpoints and feature groups"
  assume_role_policy = data.aws_iam_policy_document.trust["sagemaker"].json
}

resource "aws_iam_role_policy" "sagemaker" {
  name   = "containers"
  role   = aws_iam_role.sagemaker.id
  policy = data.aws_iam_policy_document.sagemaker.json
}

data "aws_iam_policy_document" "sagemaker" {
  statement {
    sid       = "Objects"
    actions   = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
    resources = ["${aws_s3_bucket.data.arn}/*"]
  }

  # A feature group looks whose bucket it is before it writes.
  statement {
    sid       = "Keys"
    actions   = ["s3:GetBucketAcl", "s3:GetBucketLocation", "s3:ListBucket"]
    resources = [aws_s3_bucket.data.arn]
  }

  statement {
    sid       = "Secrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = local.secret_arns
  }

  statement {
    sid       = "TheKeyOfAllThat"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.main.arn]
  }

  statement {
    sid       = "LogIn"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "Pull"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [for repository in aws_ecr_repository.images : repository.arn]
  }

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["arn:${local.aws}:logs:${var.region}:${local.account}:log-group:/aws/sagemaker/*"]
  }

  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["/aws/sagemaker/Endpoints", "/aws/sagemaker/TrainingJobs"]
    }
  }
}

resource "aws_iam_role" "scheduler" {
  name               = "mlops-scheduler"
  description        = "The daily check for drift"
  assume_role_policy = data.aws_iam_policy_document.trust["scheduler"].json
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "drift-check"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.scheduler.json
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    sid       = "OneDocumentToOneNode"
    actions   = ["ssm:SendCommand"]
    resources = [aws_ssm_document.drift_check.arn, aws_instance.core.arn]
  }

  statement {
    sid       = "TheKeyOfTheSchedule"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.main.arn]
  }
}

resource "aws_iam_role" "flow" {
  name               = "mlops-flow-logs"
  description        = "Notes of refused traffic"
  assume_role_policy = data.aws_iam_policy_document.trust["flow"].json
}

resource "aws_iam_role_policy" "flow" {
  name   = "log"
  role   = aws_iam_role.flow.id
  policy = data.aws_iam_policy_document.flow.json
}

data "aws_iam_policy_document" "flow" {
  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = [aws_cloudwatch_log_group.flow.arn, "${aws_cloudwatch_log_group.flow.arn}:*"]
  }
}
